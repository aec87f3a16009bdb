#include "driver/task/user.h"

#include <grp.h>
#include <pwd.h>

#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr char kDefaultUser[] = "nobody";
constexpr char kNoHome[] = "/nonexistent";
constexpr int kMaxGroups = 1024;

struct Account {
  std::string name;
  std::string home;
  gid_t gid;
  uid_t uid;
};

std::optional<Account> FromPasswd(const passwd* entry) {
  if (entry == nullptr) return std::nullopt;
  return Account{entry->pw_name, entry->pw_dir, entry->pw_gid, entry->pw_uid};
}

std::optional<Account> Lookup(const std::string& name) {
  std::vector<char> buffer(16384);
  passwd entry;
  passwd* found = nullptr;
  uint32_t uid;
  if (absl::SimpleAtoi(name, &uid)) {
    ::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found);
    if (found == nullptr) return Account{absl::StrCat("uid-", uid), kNoHome, uid, uid};
  } else {
    ::getpwnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  }
  return FromPasswd(found);
}

std::optional<Account> FromNomadPool(const std::string& name) {
  absl::string_view number = name;
  uint32_t uid;
  if (!absl::ConsumePrefix(&number, "nomad-") || !absl::SimpleAtoi(number, &uid))
    return std::nullopt;
  return Account{name, kNoHome, uid, uid};
}

absl::StatusOr<gid_t> LookupGroup(const std::string& name) {
  uint32_t gid;
  if (absl::SimpleAtoi(name, &gid)) return gid;
  std::vector<char> buffer(16384);
  group entry;
  group* found = nullptr;
  ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("user: group '", name, "' is not known on this host"));
  }
  return found->gr_gid;
}

void AddSupplementaryGroups(const Account& account, pb::UserSpec& user) {
  std::vector<gid_t> groups(kMaxGroups);
  int count = kMaxGroups;
  if (::getgrouplist(account.name.c_str(), account.gid, groups.data(), &count) < 0) return;
  for (int i = 0; i < count; ++i) {
    if (groups[i] != account.gid) user.add_groups(groups[i]);
  }
}

}  // namespace

absl::StatusOr<pb::UserSpec> ResolveUser(const std::string& user, bool allow_root) {
  const std::vector<std::string> parts =
      absl::StrSplit(user.empty() ? kDefaultUser : user, absl::MaxSplits(':', 1));
  std::optional<Account> account = Lookup(parts[0]);
  if (!account.has_value()) account = FromNomadPool(parts[0]);
  if (!account.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("user: '", parts[0], "' is not known on this host"));
  }
  if (parts.size() == 2) {
    ASSIGN_OR_RETURN(account->gid, LookupGroup(parts[1]));
  }
  // -1 would leave the payload root (setresuid(2)).
  if (account->uid == static_cast<uid_t>(-1) || account->gid == static_cast<gid_t>(-1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("user: '", user, "': 4294967295 is no user or group id"));
  }
  if (!allow_root && (account->uid == 0 || account->gid == 0)) {
    return absl::PermissionDeniedError(absl::StrCat(
        "user: '", user,
        "' is root, which the plugin's option allow_root = false forbids; name "
        "another user in the job or set allow_root = true in the client's plugin block"));
  }
  pb::UserSpec spec;
  spec.set_uid(account->uid);
  spec.set_gid(account->gid);
  spec.set_name(account->name);
  spec.set_home(account->home);
  AddSupplementaryGroups(*account, spec);
  return spec;
}

}  // namespace jenkins_agent
