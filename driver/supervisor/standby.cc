#include "driver/supervisor/standby.h"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>

#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/supervisor/init_process.h"
#include "driver/supervisor/init_protocol.h"
#include "driver/supervisor/protocol.h"
#include "driver/supervisor/supervisor.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {
namespace {

struct Header {
  int64_t received_ns;
  int64_t ordered_ns;
};

// SIG_IGN of the spawner's SIGCHLD would make every wait of the supervisor fail with ECHILD.
void LeaveSpawner() {
  ::signal(SIGCHLD, SIG_DFL);
  for (int signal : {SIGHUP, SIGPIPE, SIGINT, SIGTERM}) ::signal(signal, SIG_IGN);
  ::setsid();
  (void)::prctl(PR_SET_NAME, kStandbyName);  // pid 1 inherits it
}

absl::StatusOr<Assignment> ReceiveAssignment(int spawner) {
  ASSIGN_OR_RETURN(Packet packet, ReceivePacket(spawner));
  Header header;
  if (packet.data.size() != sizeof(header) || packet.fds.size() != 3) {
    return absl::InternalError("assignment is garbled");
  }
  std::memcpy(&header, packet.data.data(), sizeof(header));
  return Assignment{header.received_ns, header.ordered_ns, std::move(packet.fds[0]),
                    std::move(packet.fds[1]), std::move(packet.fds[2])};
}

// A pid 1 that somebody has killed is no use: whoever is asked next makes another.
Assignment AwaitAssignment(int spawner, int init_pidfd) {
  pollfd fds[] = {{spawner, POLLIN, 0}, {init_pidfd, POLLIN, 0}};
  while (::poll(fds, 2, -1) < 0) {  // EINTR
  }
  if (fds[1].revents != 0) ::_exit(1);
  absl::StatusOr<Assignment> assignment = ReceiveAssignment(spawner);
  if (!assignment.ok()) ::_exit(absl::IsOutOfRange(assignment.status()) ? 0 : 1);
  return *std::move(assignment);
}

// pid 1 begins while the supervisor parses; it reads the file from the start, after us.
absl::StatusOr<pb::LaunchSpec> ReadSpec(const Assignment& assignment, const InitProcess& init) {
  const int file = assignment.spec.get();
  ASSIGN_OR_RETURN(const std::string bytes, ReadAll(file, kMaxSpecBytes), "task description");
  if (::lseek(file, 0, SEEK_SET) != 0) return ErrnoStatus("lseek");
  RETURN_IF_ERROR(SendOrder(init.socket.get(), file, assignment.root_template.get()), "sandbox");
  pb::LaunchSpec spec;
  if (!spec.ParseFromString(bytes))
    return absl::InvalidArgumentError("task description is garbled");
  std::string().swap(*spec.mutable_packed_sandbox());  // pid 1 has its own copy
  return spec;
}

}  // namespace

absl::Status Assign(int socket, const Assignment& assignment) {
  const Header header = {assignment.received_ns, assignment.ordered_ns};
  return SendPacket(
      socket, {reinterpret_cast<const char*>(&header), sizeof(header)},
      {assignment.spec.get(), assignment.connection.get(), assignment.root_template.get()});
}

void RunStandby(Fd spawner, const absl::StatusOr<cgroups::Hierarchy>& hierarchy) {
  LeaveSpawner();
  absl::StatusOr<InitProcess> init =
      hierarchy.ok() ? StartInit(*hierarchy, {spawner.get()}) : hierarchy.status();
  Assignment assignment = AwaitAssignment(spawner.get(), init.ok() ? init->pidfd.get() : -1);
  (void)::prctl(PR_SET_NAME, "ja-supervisor");
  FaultPoint("supervisor.start.forked");
  // Whatever was short when it waited need not be any more.
  if (!init.ok() && hierarchy.ok()) {
    init = StartInit(*hierarchy, {spawner.get(), assignment.connection.get(), assignment.spec.get(),
                                  assignment.root_template.get()});
  }
  absl::StatusOr<pb::LaunchSpec> spec =
      init.ok() ? ReadSpec(assignment, *init) : Annotate(init.status(), "sandbox");
  if (!spec.ok()) {
    SendStartError(assignment.connection.get(), spec.status());
    ::_exit(1);
  }
  assignment.spec.Reset();
  assignment.root_template.Reset();
  {
    Supervisor supervisor(*std::move(spec), *hierarchy, *std::move(init),
                          std::move(assignment.connection), std::move(spawner),
                          assignment.received_ns, assignment.ordered_ns);
    supervisor.Run();
  }
  ::_exit(0);
}

}  // namespace jenkins_agent
