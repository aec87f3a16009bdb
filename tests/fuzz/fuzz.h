// What every fuzz program needs: the entry point's declaration, and a check that ends the program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace jenkins_agent {

inline void Require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace jenkins_agent
