#include "driver/task/request_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using NomadTask = hashicorp::nomad::plugins::drivers::proto::TaskConfig;

constexpr size_t kMaxIdBytes = 4096;
constexpr size_t kMaxShown = 80;  // of a value, in an error
// "<alloc_id>.<task>.scope" is one file name in the cgroup file system.
constexpr size_t kMaxCgroupName = 255 - (sizeof(".scope") - 1);
constexpr size_t kMaxPath = 4095;  // PATH_MAX without the NUL
// 4 EiB. Beyond, the number of bytes does not fit what the kernel counts with.
constexpr int64_t kMaxMemoryMb = int64_t{1} << 42;

// linux/binfmts.h and fs/exec.c, bprm_stack_limits().
constexpr size_t kMaxArgStrlen = 32 * 4096;  // MAX_ARG_STRLEN, with the NUL
constexpr uint64_t kMaxTotal = 6 << 20;      // 3/4 of _STK_LIM
constexpr uint64_t kMinTotal = 32 * 4096;    // ARG_MAX
constexpr uint64_t kReserve = 8 << 10;       // the path, JAVA_HOME, what the loader puts there

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

std::string Shown(absl::string_view text) {
  return absl::StrCat("'", absl::CHexEscape(text.substr(0, kMaxShown)),
                      text.size() > kMaxShown ? "...'" : "'");
}

// A line break would make /proc/<pid>/cgroup ambiguous; the kernel refuses it in a cgroup's name.
absl::Status CheckComponent(absl::string_view name) {
  if (name.empty()) return Invalid("is empty");
  if (name == "." || name == ".." ||
      name.find_first_of(absl::string_view("/\n\0", 3)) != name.npos) {
    return Invalid(Shown(name),
                   " cannot be the name of a directory: '/', line breaks, NUL, '.' and '..' are "
                   "not allowed");
  }
  return absl::OkStatus();
}

absl::Status CheckNames(const NomadTask& task) {
  if (task.id().empty()) return Invalid("task id: is empty");
  if (task.id().size() > kMaxIdBytes) {
    return Invalid("task id: ", task.id().size(), " bytes are too long (allowed: up to ",
                   kMaxIdBytes, ")");
  }
  RETURN_IF_ERROR(CheckComponent(task.name()), "task name");
  RETURN_IF_ERROR(CheckComponent(task.alloc_id()), "alloc_id");
  const size_t cgroup_name = task.alloc_id().size() + 1 + task.name().size();
  if (cgroup_name > kMaxCgroupName) {
    return Invalid("task name ", Shown(task.name()), ": too long, with the allocation's id it has ",
                   cgroup_name, " bytes and a cgroup's name at most ", kMaxCgroupName);
  }
  return absl::OkStatus();
}

absl::Status CheckPath(absl::string_view path) {
  if (path.size() < 2 || path[0] != '/' || path.find('\0') != path.npos) {
    return Invalid(Shown(path), " is not an absolute path");
  }
  if (path.size() > kMaxPath) return Invalid(Shown(path), " is longer than ", kMaxPath, " bytes");
  for (absl::string_view part : absl::StrSplit(path.substr(1), '/')) {
    if (part.empty() || part == "." || part == "..") {
      return Invalid(Shown(path), " is not a plain path: no '//', '.', '..' or '/' at the end");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPaths(const NomadTask& task) {
  RETURN_IF_ERROR(CheckPath(task.alloc_dir()), "alloc_dir");
  RETURN_IF_ERROR(CheckPath(task.stdout_path()), "stdout_path");
  return Annotate(CheckPath(task.stderr_path()), "stderr_path");
}

absl::Status CheckResources(const NomadTask& task) {
  const auto& memory = task.resources().allocated_resources().memory();
  if (memory.memory_mb() < 0 || memory.memory_mb() > kMaxMemoryMb) {
    return Invalid("resources.memory: ", memory.memory_mb(), " MB (allowed: 0 to ", kMaxMemoryMb,
                   ", 0 for no limit)");
  }
  if (memory.memory_max_mb() < -1 || memory.memory_max_mb() > kMaxMemoryMb) {
    return Invalid("resources.memory_max: ", memory.memory_max_mb(), " MB (allowed: -1 to ",
                   kMaxMemoryMb, ", -1 for no limit)");
  }
  const int64_t shares = task.resources().linux_resources().cpu_shares();
  if (shares < 0) return Invalid("resources.cpu: ", shares, " MHz is negative");
  return absl::OkStatus();
}

// What execve(2) would cut off or read differently.
absl::Status CheckEnvironment(const NomadTask& task) {
  for (const auto& [name, value] : task.env()) {
    if (name.find('=') != name.npos || name.find('\0') != name.npos) {
      return Invalid("env ", Shown(name), ": '=' and NUL cannot be part of a variable's name");
    }
    if (value.find('\0') != value.npos) {
      return Invalid("env ", Shown(name), ": contains a NUL byte, which no environment can hold");
    }
  }
  return absl::OkStatus();
}

absl::Status TooLong(absl::string_view what, size_t bytes) {
  return Invalid(what, ": ", bytes, " bytes, but Linux allows ", kMaxArgStrlen - 1,
                 " for one string; put it into a file with a template block");
}

}  // namespace

absl::Status CheckStartRequest(const NomadTask& task) {
  RETURN_IF_ERROR(CheckNames(task));
  RETURN_IF_ERROR(CheckPaths(task));
  RETURN_IF_ERROR(CheckResources(task));
  return CheckEnvironment(task);
}

absl::Status CheckExecSize(const pb::ProgramSpec& program, uint64_t stack_limit) {
  uint64_t total = kReserve;
  for (int i = 0; i < program.argv_size(); ++i) {
    const size_t bytes = program.argv(i).size();
    if (bytes >= kMaxArgStrlen) {
      return TooLong(i == 0 ? "command" : absl::StrCat("args[", i - 1, "]"), bytes);
    }
    total += bytes + 1 + sizeof(char*);
  }
  for (const std::string& variable : program.env()) {
    if (variable.size() >= kMaxArgStrlen) {
      const absl::string_view name = absl::string_view(variable).substr(0, variable.find('='));
      return TooLong(absl::StrCat("env ", Shown(name)), variable.size());
    }
    total += variable.size() + 1 + sizeof(char*);
  }
  const uint64_t limit = std::max(std::min(kMaxTotal, stack_limit / 4), kMinTotal);
  if (total <= limit) return absl::OkStatus();
  return Invalid("environment (", program.env_size(), " variables) and arguments take ", total,
                 " bytes, but Linux allows ", limit,
                 " (a quarter of the stack limit, at most 6 MiB); put large values into files with "
                 "a template block");
}

}  // namespace jenkins_agent
