#define XXH_INLINE_ALL  // the header alone, no shared library
#include "driver/image/content_sum.h"

#include <xxhash.h>

namespace jenkins_agent {

struct ContentSum::State {
  XXH3_state_t state;
};

ContentSum::ContentSum() : state_(std::make_unique<State>()) {
  ::XXH3_64bits_reset(&state_->state);
}
ContentSum::~ContentSum() = default;

void ContentSum::Add(absl::string_view piece) {
  ::XXH3_64bits_update(&state_->state, piece.data(), piece.size());
}

uint64_t ContentSum::Finish() {
  const uint64_t sum = ::XXH3_64bits_digest(&state_->state);
  ::XXH3_64bits_reset(&state_->state);
  return sum;
}

}  // namespace jenkins_agent
