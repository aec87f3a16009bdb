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
#include "driver/sandbox/accounts.h"

namespace jenkins_agent {
namespace {

constexpr char kDefaultUser[] = "nobody";
constexpr char kNoHome[] = "/nonexistent";
constexpr int kMaxGroups = 1024;
constexpr uint32_t kNobodyId = 65534;

struct Account {
  std::string name;
  std::string home;
  gid_t gid = 0;
  uid_t uid = 0;
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

absl::Status CheckIds(const std::string& user, const Account& account, bool allow_root) {
  // -1 would leave the payload root (setresuid(2)).
  if (account.uid == static_cast<uid_t>(-1) || account.gid == static_cast<gid_t>(-1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("user: '", user, "': 4294967295 is no user or group id"));
  }
  if (!allow_root && (account.uid == 0 || account.gid == 0)) {
    return absl::PermissionDeniedError(absl::StrCat(
        "user: '", user,
        "' is root, which the plugin's option allow_root = false forbids; name "
        "another user in the job or set allow_root = true in the client's plugin block"));
  }
  return absl::OkStatus();
}

pb::UserSpec SpecOf(const Account& account) {
  pb::UserSpec spec;
  spec.set_uid(account.uid);
  spec.set_gid(account.gid);
  spec.set_name(account.name);
  spec.set_home(account.home);
  return spec;
}

// As docker reads USER: a user without an entry is a number, and its group root unless it is named;
// here its group is the number too.
absl::StatusOr<Account> AccountInImage(const std::string& user, absl::string_view passwd,
                                       absl::string_view group) {
  const std::vector<std::string> parts = absl::StrSplit(user, absl::MaxSplits(':', 1));
  uint32_t number = 0;
  Account account;
  if (const auto entry = FindUser(passwd, parts[0])) {
    account = {entry->name, entry->home.empty() ? "/" : entry->home, entry->gid, entry->uid};
  } else if (absl::SimpleAtoi(parts[0], &number)) {
    account = {absl::StrCat("uid-", number), kNoHome, number, number};
  } else if (const std::optional<Account> pooled = FromNomadPool(parts[0])) {
    account = *pooled;
  } else if (parts[0] == kDefaultUser) {
    account = {kDefaultUser, kNoHome, kNobodyId, kNobodyId};
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("user: '", parts[0], "' is not in the image's /etc/passwd"));
  }
  if (parts.size() < 2) return account;
  if (const auto gid = FindGroup(group, parts[1])) {
    account.gid = *gid;
  } else if (absl::SimpleAtoi(parts[1], &number)) {
    account.gid = number;
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat("user: group '", parts[1], "' is not in the image's /etc/group"));
  }
  return account;
}

}  // namespace

absl::StatusOr<pb::UserSpec> ResolveImageUser(const std::string& user,
                                              const std::string& image_user,
                                              absl::string_view passwd, absl::string_view group,
                                              bool allow_root) {
  // Nomad fills in a number of its pool where the job names nobody.
  const bool named = !user.empty() && !FromNomadPool(user).has_value();
  const bool the_images = !named && !image_user.empty();
  const std::string& chosen = the_images ? image_user : user;
  ASSIGN_OR_RETURN(const Account account,
                   AccountInImage(chosen.empty() ? kDefaultUser : chosen, passwd, group));
  RETURN_IF_ERROR(
      CheckIds(the_images ? absl::StrCat(chosen, " (of the image)") : chosen, account, allow_root));
  pb::UserSpec spec = SpecOf(account);
  for (const uint32_t gid : GroupsWithMember(group, account.name)) {
    if (gid != account.gid && (gid != 0 || allow_root)) spec.add_groups(gid);
  }
  return spec;
}

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
  RETURN_IF_ERROR(CheckIds(user, *account, allow_root));
  pb::UserSpec spec = SpecOf(*account);
  AddSupplementaryGroups(*account, spec);
  return spec;
}

}  // namespace jenkins_agent
