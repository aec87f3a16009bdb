#include "driver/supervisor/first_child.h"

#include <signal.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "cgroups/cgroup.h"
#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"
#include "driver/supervisor/protocol.h"

namespace jenkins_agent {
namespace {

// What ParseLaunchError takes for OK.
constexpr absl::string_view kInPlace("\0", 1);
constexpr absl::string_view kLaunch = "L";

// ---- the child ----

absl::Status TakePlace(const LaunchContext& context, bool inside) {
  if (!inside) RETURN_IF_ERROR(context.cgroup.Enter());
  FaultPoint("payload.start.in_cgroup");
  return cgroups::UnshareNamespace();
}

absl::StatusOr<pb::ProgramSpec> AwaitProgram(int channel) {
  ASSIGN_OR_RETURN(const Packet packet, ReceivePacket(channel));
  if (packet.fds.empty()) return absl::InternalError("request is garbled");
  const int file = packet.fds[0].get();
  if (::lseek(file, 0, SEEK_SET) != 0) return ErrnoStatus("lseek");  // pid 1 has read it
  ASSIGN_OR_RETURN(const std::string bytes, ReadAll(file, kMaxSpecBytes));
  pb::ProgramSpec program;
  if (!program.ParseFromString(bytes)) return absl::InternalError("request is garbled");
  return program;
}

absl::Status BecomePayloadWhenAsked(const LaunchContext& context, int channel) {
  const auto connect = [&] { return ConnectPayloadStdio(context); };
  RETURN_IF_ERROR(BecomeTaskProcess(context, connect, channel));
  ASSIGN_OR_RETURN(const pb::ProgramSpec program, AwaitProgram(channel));
  return ExecuteProgram(program);
}

[[noreturn]] void RunChild(const LaunchContext& context, bool inside, int channel) {
  absl::Status status = TakePlace(context, inside);
  if (status.ok()) status = SendPacket(channel, kInPlace);
  if (status.ok()) status = BecomePayloadWhenAsked(context, channel);
  EndWithLaunchError(status, channel);
}

}  // namespace

absl::StatusOr<FirstChild> StartFirstChild(const LaunchContext& context) {
  ASSIGN_OR_RETURN(SocketPair channel, MakeSocketPair(SOCK_SEQPACKET));
  ASSIGN_OR_RETURN(const cgroups::Cgroup::Forked forked, context.cgroup.Fork());
  if (forked.pid == 0) RunChild(context, forked.inside, channel.second.get());
  FirstChild child;
  child.pid = forked.pid;
  child.channel = std::move(channel.first);
  ASSIGN_OR_RETURN(child.pidfd, OpenPidfd(child.pid));
  return child;
}

absl::Status TakeCgroupNamespace(const FirstChild& child) {
  const absl::StatusOr<Packet> word = ReceivePacket(child.channel.get());
  if (!word.ok()) return absl::InternalError("the first process in the cgroup died");
  RETURN_IF_ERROR(ParseLaunchError(word->data));
  return cgroups::JoinNamespaceOf(child.pidfd.get());
}

absl::StatusOr<StartingPayload> LaunchFirst(FirstChild child, int packed_program) {
  RETURN_IF_ERROR(SendPacket(child.channel.get(), kLaunch, {packed_program}));
  StartingPayload payload;
  payload.pid = child.pid;
  payload.pidfd = std::move(child.pidfd);
  payload.error = std::move(child.channel);
  return payload;
}

}  // namespace jenkins_agent
