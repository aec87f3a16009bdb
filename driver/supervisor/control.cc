#include "driver/supervisor/control.h"

#include <fcntl.h>

#include <atomic>
#include <map>
#include <string>
#include <utility>

#include "driver/base/packet.h"
#include "driver/base/status.h"

namespace jenkins_agent {

// Lives on the loop's thread; kept alive by the loop's callbacks until Close().
class Control::Connection : public std::enable_shared_from_this<Control::Connection> {
 public:
  Connection(EventLoop* loop, Fd fd, Handlers handlers)
      : loop_(loop), fd_(std::move(fd)), handlers_(std::move(handlers)) {}

  void Open();
  void Send(pb::ControlRequest request, Callback callback, std::chrono::milliseconds timeout);
  void Close(const absl::Status& reason);
  // Any thread: from now on no handler is called.
  void Mute() { muted_ = true; }

 private:
  struct Pending {
    Callback callback;
    EventLoop::TimerId timer;
  };

  void OnReadable();
  void Take(const pb::ControlReply& reply);
  void TakeNews(const pb::ControlReply& news);
  void Lose();
  void Complete(uint64_t sequence, absl::StatusOr<pb::ControlReply> reply);

  EventLoop* const loop_;
  Fd fd_;
  const Handlers handlers_;
  std::atomic<bool> muted_ = false;
  uint64_t next_sequence_ = 1;
  std::map<uint64_t, Pending> pending_;
};

void Control::Connection::Open() {
  ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  const absl::Status watched = loop_->Watch(
      fd_.get(), EPOLLIN, [self = shared_from_this()](uint32_t) { self->OnReadable(); });
  if (!watched.ok()) Lose();
}

void Control::Connection::OnReadable() {
  while (fd_) {
    const absl::StatusOr<Packet> packet = ReceivePacket(fd_.get());
    if (absl::IsResourceExhausted(packet.status())) return;
    pb::ControlReply reply;
    if (!packet.ok() || !reply.ParseFromString(packet->data)) return Lose();
    Take(reply);
  }
}

void Control::Connection::Take(const pb::ControlReply& reply) {
  if (reply.sequence() == 0) return TakeNews(reply);
  if (reply.error_code() == 0) return Complete(reply.sequence(), reply);
  Complete(reply.sequence(),
           absl::Status(static_cast<absl::StatusCode>(reply.error_code()), reply.error()));
}

void Control::Connection::TakeNews(const pb::ControlReply& news) {
  if (muted_) return;
  if (news.has_event() && handlers_.on_event) handlers_.on_event(news.event());
  if (news.has_exit() && handlers_.on_exit) handlers_.on_exit(news.exit());
}

void Control::Connection::Send(pb::ControlRequest request, Callback callback,
                               std::chrono::milliseconds timeout) {
  if (!fd_) return callback(absl::UnavailableError("the task's supervisor is gone"));
  const uint64_t sequence = next_sequence_++;
  request.set_sequence(sequence);
  const auto timer = loop_->After(timeout, [self = shared_from_this(), sequence, timeout] {
    self->Complete(sequence,
                   absl::DeadlineExceededError(absl::StrCat(
                       "the task's supervisor did not answer within ", timeout.count(), " ms")));
  });
  pending_[sequence] = {std::move(callback), timer};
  const absl::Status sent = SendPacket(fd_.get(), request.SerializeAsString());
  if (!sent.ok()) Complete(sequence, sent);  // the end of file tells a lost connection
}

void Control::Connection::Complete(uint64_t sequence, absl::StatusOr<pb::ControlReply> reply) {
  const auto it = pending_.find(sequence);
  if (it == pending_.end()) return;  // timed out before
  const Pending pending = std::move(it->second);
  pending_.erase(it);
  loop_->Cancel(pending.timer);
  pending.callback(std::move(reply));
}

void Control::Connection::Lose() {
  Close(absl::UnavailableError("the task's supervisor is gone"));
  if (!muted_ && handlers_.on_lost) handlers_.on_lost();
}

void Control::Connection::Close(const absl::Status& reason) {
  if (!fd_) return;
  const auto self = shared_from_this();  // the loop's reference may be the last one
  loop_->Unwatch(fd_.get());
  fd_.Reset();
  while (!pending_.empty()) Complete(pending_.begin()->first, reason);
}

std::unique_ptr<Control> Control::Create(EventLoop* loop, Fd connection, Handlers handlers) {
  auto shared = std::make_shared<Connection>(loop, std::move(connection), std::move(handlers));
  loop->Post([shared] { shared->Open(); });
  return std::unique_ptr<Control>(new Control(loop, std::move(shared)));
}

Control::~Control() {
  connection_->Mute();
  loop_->Post(
      [connection = connection_] { connection->Close(absl::CancelledError("connection closed")); });
}

void Control::Call(pb::ControlRequest request, Callback callback,
                   std::chrono::milliseconds timeout) {
  loop_->Post(
      [connection = connection_, request = std::move(request), callback = std::move(callback),
       timeout]() mutable { connection->Send(std::move(request), std::move(callback), timeout); });
}

}  // namespace jenkins_agent
