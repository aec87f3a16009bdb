// What of one task is looked at again and again: its files stay open, as opening them is most of a
// look's cost. Not thread-safe. A directory can be removed meanwhile: then nothing is read.
#pragma once

#include <cstdint>
#include <optional>

#include "cgroups/hierarchy.h"
#include "cgroups/usage.h"
#include "driver/base/fd.h"

namespace jenkins_agent::cgroups {

class Gauges {
 public:
  // Of the pids, memory and freezer directories, or of v2's one; none: not told by this host.
  struct Files {
    Fd pids;
    Fd memory;
    Fd memory_stat;
    Fd freezer;
  };
  struct Reading {
    std::optional<uint64_t> pids;          // processes and threads
    std::optional<uint64_t> memory_bytes;  // MemoryInUse()
    bool frozen = false;                   // somebody has stopped them all, or is about to
  };
  Gauges(Version version, Files files, const Ceiling& ceiling)
      : version_(version), files_(std::move(files)), ceiling_(ceiling) {}

  Reading Read() const;
  const Ceiling& ceiling() const { return ceiling_; }

 private:
  Version version_;
  Files files_;
  Ceiling ceiling_;
};

}  // namespace jenkins_agent::cgroups
