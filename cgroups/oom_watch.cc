#include "cgroups/oom_watch.h"

#include <errno.h>
#include <unistd.h>

namespace jenkins_agent::cgroups {

bool OomWatch::Acknowledge() const {
  if (!is_v2_) {
    uint64_t count = 0;
    return ::read(event_.get(), &count, sizeof(count)) == sizeof(count) || errno == EAGAIN;
  }
  char text[512];
  return ::pread(event_.get(), text, sizeof(text), 0) > 0;  // ENODEV: removed
}

}  // namespace jenkins_agent::cgroups
