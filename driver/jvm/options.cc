#include "driver/jvm/options.h"

#include <algorithm>
#include <initializer_list>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

// The builds' own JVMs and tools need the rest.
constexpr int kAgentShareOfMemory = 4;

class UserOptions {
 public:
  explicit UserOptions(const std::vector<std::string>& options) : options_(options) {}

  bool HasAny(std::initializer_list<absl::string_view> prefixes) const {
    return std::any_of(options_.begin(), options_.end(), [&](const std::string& option) {
      return std::any_of(prefixes.begin(), prefixes.end(), [&](absl::string_view prefix) {
        return absl::StartsWith(option, prefix);
      });
    });
  }

  // -XX:+UseG1GC, -XX:+UseZGC, -XX:-UseSerialGC ...
  bool ChooseCollector() const {
    return std::any_of(options_.begin(), options_.end(), [](const std::string& option) {
      return (absl::StartsWith(option, "-XX:+Use") || absl::StartsWith(option, "-XX:-Use")) &&
             absl::EndsWith(option, "GC");
    });
  }

 private:
  const std::vector<std::string>& options_;
};

std::string HeapOption(int64_t memory_bytes) {
  const int64_t share = memory_bytes == 0 ? kMaxAgentHeapBytes : memory_bytes / kAgentShareOfMemory;
  return absl::StrCat("-Xmx", std::clamp(share, kMinAgentHeapBytes, kMaxAgentHeapBytes) >> 20, "m");
}

}  // namespace

std::vector<std::string> DefaultJvmOptions(int64_t memory_bytes,
                                           const std::vector<std::string>& user_options) {
  const UserOptions user(user_options);
  std::vector<std::string> options;
  if (!user.ChooseCollector()) options.push_back("-XX:+UseSerialGC");
  if (!user.HasAny({"-Xss", "-XX:ThreadStackSize="})) options.push_back("-Xss512k");
  if (!user.HasAny({"-Xmx", "-XX:MaxHeapSize=", "-XX:MaxRAM"})) {
    options.push_back(HeapOption(memory_bytes));
  }
  if (!user.HasAny({"-XX:TieredStopAtLevel=", "-XX:-TieredCompilation", "-XX:+TieredCompilation",
                    "-Xint", "-Xcomp"})) {
    options.push_back("-XX:TieredStopAtLevel=1");
  }
  if (!user.HasAny({"-XX:+UsePerfData", "-XX:-UsePerfData"})) {
    options.push_back("-XX:-UsePerfData");
  }
  if (!user.HasAny({"-XX:+ExitOnOutOfMemoryError", "-XX:-ExitOnOutOfMemoryError",
                    "-XX:+CrashOnOutOfMemoryError"})) {
    options.push_back("-XX:+ExitOnOutOfMemoryError");
  }
  options.insert(options.end(), user_options.begin(), user_options.end());
  return options;
}

}  // namespace jenkins_agent
