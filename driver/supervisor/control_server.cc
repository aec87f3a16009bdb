#include "driver/supervisor/control_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "driver/base/packet.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"

namespace jenkins_agent {

ControlServer::~ControlServer() {
  if (listener_) loop_->Unwatch(listener_.get());
  for (const auto& [id, connection] : connections_) loop_->Unwatch(connection.fd.get());
}

absl::Status ControlServer::Listen(int task_dir_fd) {
  ASSIGN_OR_RETURN(listener_, ListenPacket(task_dir_fd, kControlSocket));
  if (::fcntl(listener_.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus("O_NONBLOCK");
  return loop_->Watch(listener_.get(), EPOLLIN, [this](uint32_t) { OnConnectable(); });
}

void ControlServer::StopListening(int task_dir_fd) {
  if (!listener_) return;
  loop_->Unwatch(listener_.get());
  listener_.Reset();
  ::unlinkat(task_dir_fd, kControlSocket, 0);
}

void ControlServer::OnConnectable() {
  Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd || connections_.size() >= kMaxConnections) return;
  const absl::StatusOr<uid_t> peer = PeerUid(fd.get());
  if (!peer.ok() || (*peer != 0 && *peer != ::geteuid())) return;
  Adopt(std::move(fd));
}

uint64_t ControlServer::Adopt(Fd connection) {
  const uint64_t id = next_id_++;
  ::fcntl(connection.get(), F_SETFL, O_NONBLOCK);
  connections_[id].fd = std::move(connection);
  Watch(id);
  return id;
}

void ControlServer::Watch(uint64_t id) {
  Connection& connection = connections_.at(id);
  connection.waits_for_room = !connection.queue.empty();
  const uint32_t events = EPOLLIN | (connection.waits_for_room ? EPOLLOUT : 0u);
  const absl::Status watched =
      loop_->Watch(connection.fd.get(), events, [this, id](uint32_t ready) { OnReady(id, ready); });
  if (!watched.ok()) Disconnect(id);
}

void ControlServer::OnReady(uint64_t id, uint32_t events) {
  if ((events & EPOLLOUT) != 0) Flush(id);
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && connections_.contains(id)) Receive(id);
}

void ControlServer::Receive(uint64_t id) {
  const absl::StatusOr<Packet> packet = ReceivePacket(connections_.at(id).fd.get());
  if (absl::IsResourceExhausted(packet.status())) return;
  pb::ControlRequest request;
  if (!packet.ok() || !request.ParseFromString(packet->data)) return Disconnect(id);
  Answer(id, request);
}

void ControlServer::Answer(uint64_t id, const pb::ControlRequest& request) {
  if (late_handler_ && late_handler_(id, request)) return;
  pb::ControlReply reply = handler_(request);
  reply.set_sequence(request.sequence());
  Send(id, reply);
  if (request.has_hello() && request.hello().watch()) StartWatching(id);
}

void ControlServer::StartWatching(uint64_t id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  it->second.watches = true;
  for (const pb::Event& event : std::exchange(kept_events_, {})) {
    pb::ControlReply news;
    *news.mutable_event() = event;
    Send(id, news);
  }
  if (exit_ == nullptr) return;
  pb::ControlReply news;
  *news.mutable_exit() = *exit_;
  Send(id, news);
}

void ControlServer::Send(uint64_t id, const pb::ControlReply& news, std::vector<Fd> fds) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  if (it->second.queue.size() >= kMaxQueuedPackets) return Disconnect(id);
  it->second.queue.push_back({news.SerializeAsString(), std::move(fds)});
  Flush(id);
}

void ControlServer::Flush(uint64_t id) {
  Connection& connection = connections_.at(id);
  while (!connection.queue.empty()) {
    const Outgoing& next = connection.queue.front();
    std::vector<int> fds;
    for (const Fd& fd : next.fds) fds.push_back(fd.get());
    const absl::Status sent = SendPacket(connection.fd.get(), next.data, fds);
    if (absl::IsResourceExhausted(sent)) return Watch(id);
    if (!sent.ok()) return Disconnect(id);
    connection.queue.pop_front();
  }
  if (connection.waits_for_room) Watch(id);
}

void ControlServer::Publish(const pb::Event& event) {
  std::vector<uint64_t> watchers;
  for (const auto& [id, connection] : connections_) {
    if (connection.watches) watchers.push_back(id);
  }
  if (watchers.empty()) {
    kept_events_.push_back(event);
    if (kept_events_.size() > kMaxKeptEvents) kept_events_.pop_front();
  }
  pb::ControlReply news;
  *news.mutable_event() = event;
  for (uint64_t id : watchers) Send(id, news);
}

void ControlServer::PublishExit(const pb::ExitRecord& exit) {
  exit_ = std::make_unique<pb::ExitRecord>(exit);
  pb::ControlReply news;
  *news.mutable_exit() = exit;
  std::vector<uint64_t> watchers;
  for (const auto& [id, connection] : connections_) {
    if (connection.watches) watchers.push_back(id);
  }
  for (uint64_t id : watchers) Send(id, news);
}

void ControlServer::NotifyWhenAlone(std::function<void()> callback) {
  when_alone_ = std::move(callback);
  if (connections_.empty()) when_alone_();
}

void ControlServer::NotifyWhenGone(uint64_t id, std::function<void()> callback) {
  connections_.at(id).when_gone = std::move(callback);
}

void ControlServer::Disconnect(uint64_t id) {
  const auto it = connections_.find(id);
  if (it == connections_.end()) return;
  loop_->Unwatch(it->second.fd.get());
  const std::function<void()> when_gone = std::move(it->second.when_gone);
  connections_.erase(it);
  if (when_gone) when_gone();
  if (connections_.empty() && when_alone_) when_alone_();
}

}  // namespace jenkins_agent
