// What `prepare` needs of an instruction set: included in each one's namespace, so that the compiler
// makes one version for each.

float quantize(const float* x, int64_t count, int8_t* out) { return quantize_row(x, count, out); }

void sum_groups(const float* x, int64_t in, int64_t group, float* sums) {
  group_sums(x, in, group, sums);
}

void sum_groups(const int8_t* x, int64_t in, int64_t group, float* sums) {
  group_sums(x, in, group, sums);
}

void round_bfloat16(const float* x, int64_t count, float* out) { round_to_bfloat16(x, count, out); }

void pack_bfloat16(const float* x, int64_t count, bool interleaved, uint16_t* out) {
  constexpr int NEIGHBOURS[8] = {0, 1, 2, 3, 4, 5, 6, 7}, PAIRS[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  const int* places = interleaved ? PAIRS : NEIGHBOURS;
  for (int64_t i = 0; i < count; i += 8)
    for (int j = 0; j < 8; ++j) out[i + j] = to_bfloat16(x[i + places[j]]);
}
