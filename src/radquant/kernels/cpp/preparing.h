// What `prepare` needs of an instruction set: included in each one's namespace, so that the compiler
// makes one version for each.

Extremes extremes(const float* x, int64_t count) { return extremes_of(x, count); }

void quantize(const float* x, int64_t count, const Grid& grid, int8_t* out) {
  round_to_grid(x, count, grid, out);
}

void sum_groups(const float* x, int64_t in, int64_t group, float* sums) {
  group_sums(x, in, group, sums);
}

void sum_groups(const int8_t* x, int64_t in, int64_t group, float* sums) {
  group_sums(x, in, group, sums);
}

void round_bfloat16(const float* x, int64_t count, float* out) { round_to_bfloat16(x, count, out); }

void pack_bfloat16(const float* x, int64_t count, bool interleaved, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = to_bfloat16(x[i]);
  if (!interleaved) return;
  typedef uint16_t Eight __attribute__((vector_size(16)));
  for (int64_t i = 0; i < count; i += 8) {
    Eight values;
    __builtin_memcpy(&values, out + i, sizeof values);
    values = __builtin_shuffle(values, Eight{0, 2, 4, 6, 1, 3, 5, 7});
    __builtin_memcpy(out + i, &values, sizeof values);
  }
}
