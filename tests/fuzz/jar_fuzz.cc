// A jar from a controller, or from the job.
#include <sys/mman.h>
#include <unistd.h>

#include "driver/base/fd.h"
#include "driver/tools/jar.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace jenkins_agent;
  const Fd file(::memfd_create("jar", MFD_CLOEXEC));
  Require(::write(file.get(), data, size) == static_cast<ssize_t>(size));
  (void)InspectJar(file.get());
  const Fd copy(::memfd_create("copy", MFD_CLOEXEC));
  if (CopyWithoutSignature(file.get(), copy.get()).ok()) {
    const auto without = InspectJar(copy.get());
    Require(!without.ok() || !without->is_signed);
  }
  return 0;
}
