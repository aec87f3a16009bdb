#include "driver/base/process.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {

absl::StatusOr<std::string> BootId() {
  ASSIGN_OR_RETURN(std::string id, ReadFile("/proc/sys/kernel/random/boot_id", 64));
  return std::string(absl::StripAsciiWhitespace(id));
}

absl::StatusOr<ProcessLook> LookAtProcess(pid_t pid) {
  absl::StatusOr<std::string> stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096);
  if (!stat.ok()) return absl::NotFoundError(absl::StrCat("process ", pid, " is gone"));
  const auto unexpected = [pid] {
    return absl::InternalError(absl::StrCat("/proc/", pid, "/stat: unexpected format"));
  };
  // The command name (field 2) may hold spaces and brackets: the last ')' ends it.
  const size_t end = stat->rfind(')');
  if (end == std::string::npos || end + 2 >= stat->size()) return unexpected();
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(*stat).substr(end + 2), ' ');
  constexpr size_t kFirst = 3;  // the field at index 0
  const auto number = [&fields](size_t field, uint64_t& value) {
    return fields.size() > field - kFirst && absl::SimpleAtoi(fields[field - kFirst], &value);
  };
  ProcessLook look;
  uint64_t user, system;
  if (fields[0].size() != 1 || !number(14, user) || !number(15, system) ||
      !number(20, look.threads) || !number(22, look.start_time)) {
    return unexpected();
  }
  look.state = fields[0][0];
  look.cpu_ticks = user + system;
  if (look.state == 'Z' || look.state == 'X') {
    return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
  }
  return look;
}

absl::StatusOr<uint64_t> ProcessStartTime(pid_t pid) {
  ASSIGN_OR_RETURN(const ProcessLook look, LookAtProcess(pid));
  return look.start_time;
}

bool ProcessStopped(pid_t pid) {
  const absl::StatusOr<ProcessLook> look = LookAtProcess(pid);
  return look.ok() && (look->state == 'T' || look->state == 't');
}

}  // namespace jenkins_agent
