#include "driver/supervisor/client.h"

#include <fcntl.h>
#include <poll.h>

#include <utility>

#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/supervisor/protocol.h"
#include "driver/supervisor/spawner.h"

namespace jenkins_agent {
namespace {

absl::Status WaitReadable(int fd, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd wait = {fd, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return ErrnoStatus("poll");
    if (ready == 0) {
      return absl::DeadlineExceededError(absl::StrCat("no answer within ", timeout.count(), " ms"));
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Spawner>> Spawner::Start(Fd program) {
  auto spawner = std::unique_ptr<Spawner>(new Spawner(std::move(program)));
  MutexLock lock(spawner->mutex_);
  RETURN_IF_ERROR(spawner->StartProcess());
  return spawner;
}

Spawner::~Spawner() {
  MutexLock lock(mutex_);
  EndProcess();
}

absl::Status Spawner::StartProcess() {
  ASSIGN_OR_RETURN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  StartOptions options;
  options.env = FaultEnvironment();
  options.fds = {{sockets.second.get(), kSpawnerSocket}};
  const std::string program = absl::StrCat("/proc/self/fd/", program_.get());
  ASSIGN_OR_RETURN(process_, jenkins_agent::Start({program}, options), "start the spawner");
  socket_ = std::move(sockets.first);
  return absl::OkStatus();
}

// End of file on its socket ends the spawner, which is idle or in the middle of a fork.
void Spawner::EndProcess() {
  socket_.Reset();
  if (process_.pid > 0) (void)Wait(process_);  // its exit code means nothing to anyone
  process_ = Subprocess();
}

absl::StatusOr<Fd> Spawner::Spawn(const pb::LaunchSpec& spec, int64_t received_monotonic_ns) {
  pb::LaunchSpec versioned = spec;
  versioned.set_version(kSpecVersion);
  versioned.set_packed_sandbox(spec.sandbox().SerializeAsString());
  versioned.clear_sandbox();
  versioned.clear_root_template();
  const std::string bytes = versioned.SerializeAsString();
  if (bytes.size() > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("environment and arguments are too large: ", bytes.size(), " bytes, at most ",
                     kMaxSpecBytes));
  }
  ASSIGN_OR_RETURN(const Fd memfd, MakeSealedMemfd("task", bytes));
  ASSIGN_OR_RETURN(SocketPair control, MakeSocketPair(SOCK_SEQPACKET));
  pb::SpawnRequest request;
  request.set_version(kSpecVersion);
  request.set_received_monotonic_ns(received_monotonic_ns);
  request.set_root_template(spec.root_template().SerializeAsString());
  const std::vector<int> fds = {memfd.get(), control.second.get()};

  MutexLock lock(mutex_);
  absl::Status sent = absl::UnavailableError("no spawner");
  if (socket_) sent = SendPacket(socket_.get(), request.SerializeAsString(), fds);
  if (absl::IsUnavailable(sent)) {
    EndProcess();
    RETURN_IF_ERROR(StartProcess());
    sent = SendPacket(socket_.get(), request.SerializeAsString(), fds);
  }
  RETURN_IF_ERROR(sent, "spawner");
  return std::move(control.first);
}

pid_t Spawner::pid() const {
  MutexLock lock(mutex_);
  return process_.pid;
}

absl::StatusOr<pb::TaskStatus> AwaitStart(int connection, std::chrono::milliseconds timeout) {
  RETURN_IF_ERROR(WaitReadable(connection, timeout), "start of the task");
  const absl::StatusOr<Packet> packet = ReceivePacket(connection);
  pb::ControlReply reply;
  if (!packet.ok() || !reply.ParseFromString(packet->data)) {
    return absl::AbortedError("the task's supervisor died during the start; see supervisor.log");
  }
  if (reply.error_code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(reply.error_code()), reply.error());
  }
  return reply.status();
}

absl::StatusOr<pb::TaskStatus> AskSupervisor(const std::string& task_dir,
                                             std::chrono::milliseconds timeout) {
  ASSIGN_OR_RETURN(const Fd connection, ConnectToSupervisor(task_dir));
  pb::ControlRequest request;
  request.mutable_hello()->set_version(kSpecVersion);
  RETURN_IF_ERROR(SendPacket(connection.get(), request.SerializeAsString()));
  return AwaitStart(connection.get(), timeout);
}

absl::StatusOr<Fd> ConnectToSupervisor(const std::string& task_dir) {
  const absl::StatusOr<Fd> dir = OpenFile(task_dir, O_RDONLY | O_DIRECTORY);
  if (!dir.ok()) return absl::UnavailableError(dir.status().message());
  absl::StatusOr<Fd> socket = ConnectPacket(dir->get(), kControlSocket);
  if (!socket.ok()) return absl::UnavailableError(socket.status().message());
  return socket;
}

}  // namespace jenkins_agent
