#include "driver/base/process.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kState = 0;       // field 3
constexpr size_t kStartTime = 19;  // field 22

// From field 3 of /proc/PID/stat on, at least up to the start time.
absl::StatusOr<std::vector<std::string>> StatFields(pid_t pid) {
  absl::StatusOr<std::string> stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"), 4096);
  if (!stat.ok()) return absl::NotFoundError(absl::StrCat("process ", pid, " is gone"));
  // The command name (field 2) may hold spaces and brackets: the last ')' ends it.
  const size_t end = stat->rfind(')');
  std::vector<std::string> fields;
  if (end != std::string::npos && end + 2 < stat->size()) {
    fields = absl::StrSplit(absl::string_view(*stat).substr(end + 2), ' ');
  }
  if (fields.size() <= kStartTime) {
    return absl::InternalError(absl::StrCat("/proc/", pid, "/stat: unexpected format"));
  }
  return fields;
}

}  // namespace

absl::StatusOr<std::string> BootId() {
  ASSIGN_OR_RETURN(std::string id, ReadFile("/proc/sys/kernel/random/boot_id", 64));
  return std::string(absl::StripAsciiWhitespace(id));
}

absl::StatusOr<uint64_t> ProcessStartTime(pid_t pid) {
  ASSIGN_OR_RETURN(const std::vector<std::string> fields, StatFields(pid));
  uint64_t start_time;
  if (!absl::SimpleAtoi(fields[kStartTime], &start_time)) {
    return absl::InternalError(absl::StrCat("/proc/", pid, "/stat: unexpected format"));
  }
  if (fields[kState] == "Z" || fields[kState] == "X") {
    return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
  }
  return start_time;
}

bool ProcessStopped(pid_t pid) {
  const absl::StatusOr<std::vector<std::string>> fields = StatFields(pid);
  return fields.ok() && ((*fields)[kState] == "T" || (*fields)[kState] == "t");
}

}  // namespace jenkins_agent
