// What Python sees of a decoder: torch.classes.radquant.Decoder.

#include <torch/custom_class.h>
#include <torch/library.h>

#include "decoder.h"

namespace radquant {

TORCH_LIBRARY_FRAGMENT(radquant, library) {
  library.class_<Decoder>("Decoder")
      .def(torch::init<std::vector<int64_t>, std::vector<double>, bool, std::optional<at::Tensor>,
                       int64_t>())
      .def("set_rounding", &Decoder::set_rounding)
      .def("start_rounding", &Decoder::start_rounding)
      .def("round_cache", &Decoder::round_cache)
      .def("add_layer", &Decoder::add_layer)
      .def("set_head", &Decoder::set_head)
      .def("set_rope", &Decoder::set_rope)
      .def("run", &Decoder::run)
      .def("run_shown", &Decoder::run_shown)
      .def("logits", &Decoder::logits)
      .def("greedy", &Decoder::greedy)
      .def("load", &Decoder::load)
      .def("share", &Decoder::share)
      .def("begin_as", &Decoder::begin_as)
      .def("release", &Decoder::release)
      .def("clear", &Decoder::clear)
      .def("shared_length", &Decoder::shared_length)
      .def("weight_bytes", &Decoder::weight_bytes)
      .def("cache_bytes", &Decoder::cache_bytes);
}

}  // namespace radquant
