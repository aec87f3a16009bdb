#include "driver/config/capabilities.h"

#include <sys/capability.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"
#include "driver/config/value_checks.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxNameBytes = 40;

std::string Normalised(absl::string_view name) {
  const std::string lower = absl::AsciiStrToLower(name);
  return std::string(absl::StripPrefix(lower, "cap_"));
}

bool IsAll(const std::string& name) { return Normalised(name) == kAllCapabilities; }

absl::StatusOr<uint32_t> ParseCapability(const std::string& name) {
  const std::string plain = Normalised(name);
  cap_value_t number;
  // libcap stops at a comma and takes what is before it.
  if (name.size() <= kMaxNameBytes &&
      cap_from_name(absl::StrCat("cap_", plain).c_str(), &number) == 0 &&
      CapabilityName(static_cast<uint32_t>(number)) == plain) {
    return static_cast<uint32_t>(number);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      Quoted(name), " is no capability (allowed: names of capabilities(7) such as net_admin)"));
}

CapabilitySet Every() {
  CapabilitySet set;
  for (uint32_t number = 0; number <= CAP_LAST_CAP; ++number) set.insert(number);
  return set;
}

struct Parsed {
  bool all = false;
  CapabilitySet named;
};

absl::StatusOr<Parsed> Parse(const std::vector<std::string>& names) {
  Parsed parsed;
  for (const std::string& name : names) {
    if (IsAll(name)) {
      parsed.all = true;
      continue;
    }
    ASSIGN_OR_RETURN(const uint32_t number, ParseCapability(name));
    parsed.named.insert(number);
  }
  return parsed;
}

}  // namespace

std::string CapabilityName(uint32_t capability) {
  const std::unique_ptr<char, int (*)(void*)> name(
      cap_to_name(static_cast<cap_value_t>(capability)), cap_free);
  return name == nullptr ? absl::StrCat(capability) : Normalised(name.get());
}

absl::StatusOr<CapabilitySet> ParseCapabilities(const std::vector<std::string>& names) {
  ASSIGN_OR_RETURN(Parsed parsed, Parse(names));
  return parsed.all ? Every() : parsed.named;
}

absl::StatusOr<CapabilitySet> WantedCapabilities(const std::vector<std::string>& add,
                                                 const std::vector<std::string>& drop) {
  ASSIGN_OR_RETURN(const Parsed added, Parse(add), "cap_add");
  ASSIGN_OR_RETURN(const Parsed dropped, Parse(drop), "cap_drop");
  for (const uint32_t capability : dropped.named) {
    if (added.named.contains(capability)) {
      return absl::InvalidArgumentError(absl::StrCat("cap_add and cap_drop both name ",
                                                     CapabilityName(capability),
                                                     "; remove it from one of them"));
    }
  }
  if (!added.all || dropped.all) return added.named;
  CapabilitySet wanted = Every();
  for (const uint32_t capability : dropped.named) wanted.erase(capability);
  return wanted;
}

}  // namespace jenkins_agent
