#include "driver/nomad/state.h"

#include <algorithm>

namespace jenkins_agent::nomad {
namespace {

void Add(const Amounts& more, Amounts& sum) {
  sum.cpu_mhz += more.cpu_mhz;
  sum.memory_mb += more.memory_mb;
  // Without a maximum of its own a task may use what it reserves.
  sum.memory_max_mb += std::max(more.memory_max_mb, more.memory_mb);
}

void Raise(const Amounts& other, Amounts& largest) {
  largest.cpu_mhz = std::max(largest.cpu_mhz, other.cpu_mhz);
  largest.memory_mb = std::max(largest.memory_mb, other.memory_mb);
  largest.memory_max_mb = std::max(largest.memory_max_mb, other.memory_max_mb);
}

}  // namespace

Holding Flatten(const std::vector<TaskShare>& tasks) {
  Holding holding;
  Amounts before, main, after;
  int64_t cores_mhz = 0;
  for (const TaskShare& task : tasks) {
    Amounts amounts = task.amounts;
    if (!task.cores.empty()) {
      holding.cores.insert(holding.cores.end(), task.cores.begin(), task.cores.end());
      cores_mhz += amounts.cpu_mhz;
      amounts.cpu_mhz = 0;
    }
    switch (task.lifecycle) {
      case Lifecycle::kMain:
        Add(amounts, main);
        break;
      case Lifecycle::kPrestart:
        Add(amounts, before);
        break;
      case Lifecycle::kPrestartSidecar:
        Add(amounts, before);
        Add(amounts, main);
        break;
      case Lifecycle::kPoststop:
        Add(amounts, after);
        break;
    }
  }
  Raise(before, main);
  Raise(after, main);
  holding.amounts = main;
  holding.amounts.cpu_mhz += cores_mhz;
  return holding;
}

}  // namespace jenkins_agent::nomad
