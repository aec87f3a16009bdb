#include "driver/sandbox/privileges.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

#include "driver/base/nobody.h"
#include "driver/base/status.h"
#include "driver/sandbox/capability_sets.h"
#include "driver/sandbox/user_namespace.h"

namespace jenkins_agent {
namespace {

constexpr mode_t kUmask = 022;

absl::Status Prctl(absl::string_view what, int option, unsigned long argument) {
  if (::prctl(option, argument, 0, 0, 0) != 0) return ErrnoStatus(what);
  return absl::OkStatus();
}

using Capabilities = google::protobuf::RepeatedField<uint32_t>;

// Permitted becomes `used` and `payload`, effective `used`, inheritable `payload`; the kernel then
// leaves of the ambient set what is in both of the latter.
template <typename Used>
absl::Status SetCapabilities(const Used& used, const Capabilities& payload) {
  CapabilitySets sets;
  for (const uint32_t capability : used) {
    sets.data[CAP_TO_INDEX(capability)].effective |= CAP_TO_MASK(capability);
    sets.data[CAP_TO_INDEX(capability)].permitted |= CAP_TO_MASK(capability);
  }
  for (const uint32_t capability : payload) {
    if (!cap_valid(capability)) {
      return absl::InvalidArgumentError(absl::StrCat("capability ", capability, " is not known"));
    }
    sets.data[CAP_TO_INDEX(capability)].permitted |= CAP_TO_MASK(capability);
    sets.data[CAP_TO_INDEX(capability)].inheritable |= CAP_TO_MASK(capability);
  }
  return WriteCapabilities(sets);
}

absl::Status MakePermittedInheritable() {
  ASSIGN_OR_RETURN(CapabilitySets sets, ReadCapabilities());
  for (__user_cap_data_struct& data : sets.data) data.inheritable |= data.permitted;
  return WriteCapabilities(sets);
}

// Ambient capabilities become effective by the exec, also with no_new_privs (capabilities(7)).
absl::Status KeepThroughExec(const Capabilities& capabilities) {
  for (const uint32_t capability : capabilities) {
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0) {
      return ErrnoStatus(absl::StrCat("keep capability ", capability));
    }
  }
  return absl::OkStatus();
}

absl::Status SetLimit(uint32_t resource, uint64_t soft, uint64_t hard) {
  const rlimit limit = {.rlim_cur = soft, .rlim_max = hard};
  if (::setrlimit(static_cast<__rlimit_resource_t>(resource), &limit) != 0) {
    return ErrnoStatus(absl::StrCat("set resource limit ", resource, " to ", soft, ":", hard));
  }
  return absl::OkStatus();
}

// A core dump may start the host's core_pattern program as root outside, so there is never one.
absl::Status SetLimits(const pb::SandboxSpec& spec) {
  for (const pb::RlimitSpec& limit : spec.rlimits()) {
    RETURN_IF_ERROR(SetLimit(limit.resource(), limit.soft(), limit.hard()));
  }
  return SetLimit(RLIMIT_CORE, 0, 0);
}

absl::Status BecomeUndumpable() { return Prctl("become undumpable", PR_SET_DUMPABLE, 0); }

// Groups need CAP_SETGID, which the change of the uid takes away: ids in this order.
//
// With fs.suid_dumpable = 1 the kernel makes dumpable who changes an effective id (proc_sys_fs(5)).
// The job's processes could then attach to this one, which has no payload filter yet. Until that is
// undone its saved id is not theirs, which ptrace(2) compares, too.
absl::Status SetIds(const pb::UserSpec& user) {
  // setresuid(2) takes -1 for "as it is": root.
  if (user.uid() == static_cast<uid_t>(-1) || user.gid() == static_cast<gid_t>(-1)) {
    return absl::InvalidArgumentError("4294967295 is no user or group id");
  }
  const std::vector<gid_t> groups(user.groups().begin(), user.groups().end());
  if (::setgroups(groups.size(), groups.data()) != 0) return ErrnoStatus("set groups");
  if (::setresgid(user.gid(), user.gid(), user.gid()) != 0) {
    return ErrnoStatus(absl::StrCat("become group ", user.gid()));
  }
  constexpr uid_t kAsItIs = -1;
  if (::setresuid(user.uid(), user.uid(), kAsItIs) != 0) {
    return ErrnoStatus(absl::StrCat("become user ", user.uid()));
  }
  RETURN_IF_ERROR(BecomeUndumpable());
  if (::setresuid(kAsItIs, kAsItIs, user.uid()) != 0) {
    return ErrnoStatus(absl::StrCat("become user ", user.uid(), " for good"));
  }
  return absl::OkStatus();
}

// What launching and ending processes needs, and `payload` in reserve.
absl::Status KeepWhatLaunchesNeed(const Capabilities& payload) {
  ::umask(kUmask);
  RETURN_IF_ERROR(DropBoundingSet());  // needs CAP_SETPCAP, hence before the next step
  RETURN_IF_ERROR(SetCapabilities(std::array{CAP_SETUID, CAP_SETGID, CAP_KILL}, payload));
  RETURN_IF_ERROR(Prctl("set no_new_privs", PR_SET_NO_NEW_PRIVS, 1));
  return BecomeUndumpable();
}

}  // namespace

// Capabilities are numbered from 0 without gaps up to the kernel's newest; the next is EINVAL.
// Reading is 20 times cheaper than dropping again.
absl::Status DropBoundingSet() {
  RETURN_IF_ERROR(MakePermittedInheritable());
  for (unsigned long capability = 0;; ++capability) {
    const int in_set = ::prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (in_set < 0) return absl::OkStatus();
    if (in_set == 0) continue;
    RETURN_IF_ERROR(Prctl("drop the capability bounding set", PR_CAPBSET_DROP, capability));
  }
}

absl::Status BecomeInit(const pb::SandboxSpec& spec) {
  RETURN_IF_ERROR(KeepWhatLaunchesNeed(spec.capabilities()));
  return LoadFilter(spec.init_filter());
}

absl::Status BecomeEntrant() { return KeepWhatLaunchesNeed({}); }

absl::Status BecomePayload(const pb::UserSpec& user, const pb::SandboxSpec& spec,
                           int user_namespace) {
  ::umask(kUmask);
  RETURN_IF_ERROR(SetLimits(spec));
  if (user_namespace >= 0) {
    RETURN_IF_ERROR(EnterUserNamespace(user, user_namespace));
    // Who enters holds everything in there, the bounding set included.
    RETURN_IF_ERROR(DropBoundingSet());
    RETURN_IF_ERROR(SetCapabilities(std::array{CAP_SETUID, CAP_SETGID}, spec.capabilities()));
  }
  // The change of the uid drops all capabilities; exec ends the exception.
  if (!spec.capabilities().empty()) {
    RETURN_IF_ERROR(Prctl("keep the capabilities", PR_SET_KEEPCAPS, 1));
  }
  RETURN_IF_ERROR(SetIds(user));
  RETURN_IF_ERROR(
      SetCapabilities(std::array<uint32_t, 0>(), spec.capabilities()));  // also for uid 0
  RETURN_IF_ERROR(KeepThroughExec(spec.capabilities()));
  RETURN_IF_ERROR(Prctl("set no_new_privs", PR_SET_NO_NEW_PRIVS, 1));
  return LoadFilter(spec.payload_filter());
}

absl::Status BecomeWorker(const std::vector<uint32_t>& capabilities, const std::string& filter) {
  ::umask(0);
  RETURN_IF_ERROR(SetLimit(RLIMIT_CORE, 0, 0));
  if (::setgroups(0, nullptr) != 0) return ErrnoStatus("set groups");
  RETURN_IF_ERROR(DropBoundingSet());
  RETURN_IF_ERROR(SetCapabilities(capabilities, {}));
  RETURN_IF_ERROR(Prctl("set no_new_privs", PR_SET_NO_NEW_PRIVS, 1));
  RETURN_IF_ERROR(BecomeUndumpable());
  return LoadFilter(filter);
}

}  // namespace jenkins_agent
