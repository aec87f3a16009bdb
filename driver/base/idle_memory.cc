#include "driver/base/idle_memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace jenkins_agent {
namespace {

constexpr uintptr_t kPageBytes = 4096;         // amd64
constexpr size_t kReleasedBytes = 256 * 1024;  // a receive of a packet goes about half as deep

}  // namespace

void ReleaseIdleMemory() {
  ::malloc_trim(0);
  // One page more than this frame's own: the call below needs some.
  const uintptr_t here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  const uintptr_t end = here / kPageBytes * kPageBytes - kPageBytes;
  // Only an optimisation: a stack that is shorter than that is released as far as it goes, with
  // ENOMEM for the rest (madvise(2)).
  (void)::madvise(reinterpret_cast<void*>(end - kReleasedBytes), kReleasedBytes, MADV_DONTNEED);
}

}  // namespace jenkins_agent
