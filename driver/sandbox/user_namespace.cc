#include "driver/sandbox/user_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/sandbox/capability_sets.h"

namespace jenkins_agent {
namespace {

// The effective id alone, by which a namespace gets its owner and the owner its rights over it
// (user_namespaces(7)).
absl::Status BecomeOwner(const pb::UserSpec& user) {
  if (user.namespace_owner() == 0) return absl::OkStatus();
  if (::seteuid(user.namespace_owner()) != 0) return ErrnoStatus("become the namespace's owner");
  return absl::OkStatus();
}

// A change of the effective id to another one than root's has dropped them (capabilities(7)). Some
// hosts let nobody make a user namespace without (Debian's kernel.unprivileged_userns_clone).
absl::Status UseAllCapabilities() {
  ASSIGN_OR_RETURN(CapabilitySets sets, ReadCapabilities());
  for (__user_cap_data_struct& data : sets.data) data.effective = data.permitted;
  return WriteCapabilities(sets);
}

// The child's pid is another one in the host's /proc, so it opens what its parent needs.
absl::Status OfferNamespace(const pb::UserSpec& user, int channel) {
  ASSIGN_OR_RETURN(const Fd self, OpenFile("/proc/self", O_PATH | O_DIRECTORY));
  RETURN_IF_ERROR(BecomeOwner(user));
  RETURN_IF_ERROR(UseAllCapabilities());
  if (::unshare(CLONE_NEWUSER) != 0) return ErrnoStatus("unshare");
  ASSIGN_OR_RETURN(const Fd made, OpenFile("/proc/self/ns/user", O_RDONLY));
  return SendPacket(channel, "made", {self.get(), made.get()});
}

// Stays until its parent is done, or gone: its /proc directory is in use.
[[noreturn]] void BeFirstMember(const pb::UserSpec& user, int channel) {
  if (const absl::Status offered = OfferNamespace(user, channel); !offered.ok()) {
    SendPacket(channel, offered.message()).IgnoreError();  // its end of file tells as well
    ::_exit(1);
  }
  char end;
  (void)!::read(channel, &end, 1);
  ::_exit(0);
}

std::string MapText(const pb::UserSpec& user) {
  std::string text;
  for (const pb::IdRange& range : user.id_map()) {
    absl::StrAppend(&text, range.inside(), " ", range.outside(), " ", range.count(), "\n");
  }
  return text;
}

absl::Status WriteMap(int process_dir, const std::string& name, const std::string& text) {
  ASSIGN_OR_RETURN(const Fd file, OpenAt(process_dir, name, O_WRONLY));
  return Annotate(WriteAll(file.get(), text), name);
}

absl::StatusOr<Fd> TakeOffer(int channel, const pb::UserSpec& user) {
  ASSIGN_OR_RETURN(Packet packet, ReceivePacket(channel));
  if (packet.fds.size() != 2) return absl::InternalError(packet.data);
  RETURN_IF_ERROR(WriteMap(packet.fds[0].get(), "uid_map", MapText(user)));
  RETURN_IF_ERROR(WriteMap(packet.fds[0].get(), "gid_map", MapText(user)));
  return std::move(packet.fds[1]);
}

}  // namespace

uint32_t HostId(const pb::UserSpec& user, uint32_t id) {
  for (const pb::IdRange& range : user.id_map()) {
    if (id >= range.inside() && id - range.inside() < range.count()) {
      return range.outside() + (id - range.inside());
    }
  }
  return id;
}

absl::StatusOr<Fd> MakeUserNamespace(const pb::UserSpec& user) {
  if (user.id_map().empty()) return Fd();
  ASSIGN_OR_RETURN(SocketPair channel, MakeSocketPair(SOCK_SEQPACKET), "userns");
  const pid_t child = ::fork();
  if (child < 0) return ErrnoStatus("userns: fork");
  if (child == 0) {
    channel.first.Reset();
    BeFirstMember(user, channel.second.get());
  }
  channel.second.Reset();
  absl::StatusOr<Fd> made = TakeOffer(channel.first.get(), user);
  channel.first.Reset();
  ::waitpid(child, nullptr, 0);
  if (!made.ok()) return Annotate(made.status(), "userns");
  return made;
}

absl::Status EnterUserNamespace(const pb::UserSpec& user, int user_namespace) {
  if (user_namespace < 0) return absl::OkStatus();
  RETURN_IF_ERROR(BecomeOwner(user));
  if (::setns(user_namespace, CLONE_NEWUSER) != 0) return ErrnoStatus("enter the user namespace");
  return absl::OkStatus();
}

}  // namespace jenkins_agent
