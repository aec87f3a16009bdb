#include "driver/task/filters.h"

#include "driver/sandbox/seccomp.h"

namespace jenkins_agent {

std::shared_ptr<const Filters> TaskFilters::Get(const std::set<uint32_t>& capabilities,
                                                bool userns) {
  const Key key = {capabilities, userns};
  {
    MutexLock lock(mutex_);
    if (const auto found = kept_.find(key); found != kept_.end()) return found->second;
  }
  auto emitted = std::make_shared<const Filters>(
      Filters{PayloadFilter(capabilities), InitFilter(capabilities, userns)});
  MutexLock lock(mutex_);
  if (kept_.size() >= kMaxKept) return emitted;
  return kept_.try_emplace(key, std::move(emitted)).first->second;
}

}  // namespace jenkins_agent
