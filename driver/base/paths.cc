#include "driver/base/paths.h"

#include "absl/strings/str_cat.h"
#include "driver/base/digest.h"

namespace jenkins_agent {

std::string StatePaths::Task(absl::string_view task_id) const {
  constexpr size_t kNameDigits = 32;  // 128 bits: no collisions, and a readable length
  return absl::StrCat(Tasks(), "/", Sha256Hex(task_id).substr(0, kNameDigits));
}

}  // namespace jenkins_agent
