#include "driver/config/ulimit.h"

#include <sys/resource.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

struct Resource {
  const char* name;
  int number;
};

// docker's names (go-units, ulimit.go), less core: a core dump may start a program of the host as
// root, so there is never one.
constexpr Resource kResources[] = {{"cpu", RLIMIT_CPU},         {"data", RLIMIT_DATA},
                                   {"fsize", RLIMIT_FSIZE},     {"locks", RLIMIT_LOCKS},
                                   {"memlock", RLIMIT_MEMLOCK}, {"msgqueue", RLIMIT_MSGQUEUE},
                                   {"nice", RLIMIT_NICE},       {"nofile", RLIMIT_NOFILE},
                                   {"nproc", RLIMIT_NPROC},     {"rss", RLIMIT_RSS},
                                   {"rtprio", RLIMIT_RTPRIO},   {"rttime", RLIMIT_RTTIME},
                                   {"stack", RLIMIT_STACK},     {"sigpending", RLIMIT_SIGPENDING}};

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::StatusOr<int> ResourceOf(const std::string& name) {
  std::string known;
  for (const Resource& resource : kResources) {
    if (name == resource.name) return resource.number;
    absl::StrAppend(&known, known.empty() ? "" : ", ", resource.name);
  }
  if (name == "core") return Invalid("core dumps are always off; remove it");
  return Invalid("is not known (allowed: ", known, ")");
}

absl::StatusOr<uint64_t> ParseLimit(absl::string_view text) {
  if (text == "-1") return static_cast<uint64_t>(RLIM_INFINITY);
  uint64_t value;
  if (text.empty() || text.front() == '+' || !absl::SimpleAtoi(text, &value)) {
    return Invalid(Quoted(text), " is not a limit (allowed: a number, or -1 for none)");
  }
  return value;
}

absl::StatusOr<Ulimit> ParseUlimit(const std::string& name, absl::string_view value) {
  ASSIGN_OR_RETURN(const int resource, ResourceOf(name));
  const std::vector<absl::string_view> parts = absl::StrSplit(value, absl::MaxSplits(':', 1));
  ASSIGN_OR_RETURN(const uint64_t soft, ParseLimit(parts.front()));
  ASSIGN_OR_RETURN(const uint64_t hard, ParseLimit(parts.back()));
  if (soft > hard) {
    return Invalid(Quoted(value), ": the soft limit is above the hard one; write SOFT:HARD");
  }
  return Ulimit{name, resource, soft, hard};
}

}  // namespace

absl::StatusOr<std::vector<Ulimit>> ParseUlimits(
    const std::map<std::string, std::string>& ulimits) {
  std::vector<Ulimit> parsed;
  for (const auto& [name, value] : ulimits) {
    ASSIGN_OR_RETURN(Ulimit ulimit, ParseUlimit(name, value), name);
    parsed.push_back(std::move(ulimit));
  }
  return parsed;
}

}  // namespace jenkins_agent
