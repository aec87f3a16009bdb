#include "driver/task/exec.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/supervisor/client.h"

namespace jenkins_agent {
namespace {

constexpr char kEndOfFile = 4;  // VEOF of a new terminal, Ctrl-D

absl::Status SetNonBlocking(const Fd& fd) {
  if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus("O_NONBLOCK");
  return absl::OkStatus();
}

absl::Status GoneStatus() {
  return absl::FailedPreconditionError("the task has ended, and the command with it");
}

unsigned short ToDimension(int value) {
  return static_cast<unsigned short>(
      std::clamp<int>(value, 0, std::numeric_limits<unsigned short>::max()));
}

}  // namespace

absl::StatusOr<std::shared_ptr<ExecSession>> ExecSession::Connect(EventLoop* loop,
                                                                  const Task& task) {
  if (task.exited()) return absl::FailedPreconditionError("the task has ended");
  ASSIGN_OR_RETURN(Fd connection, ConnectToSupervisor(task.record().task_dir()),
                   "the task's supervisor");
  RETURN_IF_ERROR(SetNonBlocking(connection));
  return std::shared_ptr<ExecSession>(new ExecSession(loop, std::move(connection)));
}

// ---- calls from any thread ----

void ExecSession::Start(const Options& options, Handlers handlers) {
  loop_->Post([self = shared_from_this(), options, handlers = std::move(handlers)]() mutable {
    if (!self->connection_) return;  // cancelled before it began
    self->handlers_ = std::move(handlers);
    self->tty_ = options.tty;
    self->merge_stderr_ = options.merge_stderr;
    if (const absl::Status asked = self->Ask(options); !asked.ok()) self->End(asked);
  });
}

void ExecSession::MoreOutput(Output output) {
  loop_->Post([self = shared_from_this(), output] {
    self->sources_[output].wanted = true;
    if (self->wait_status_ && self->tty_) {
      self->ReadOutput(output);
    } else {
      self->WatchOutput(output);
    }
  });
}

void ExecSession::Write(std::string bytes) {
  loop_->Post([self = shared_from_this(), bytes = std::move(bytes)]() mutable {
    self->pending_input_ = std::move(bytes);
    self->writing_ = true;
    self->FlushInput();
  });
}

void ExecSession::CloseInput() {
  loop_->Post([self = shared_from_this()] {
    self->close_input_ = true;
    self->FlushInput();
  });
}

void ExecSession::Resize(int rows, int columns) {
  winsize size = {};
  size.ws_row = ToDimension(rows);
  size.ws_col = ToDimension(columns);
  loop_->Post([self = shared_from_this(), size] {
    self->size_ = size;
    self->ApplySize();
  });
}

void ExecSession::Cancel() {
  loop_->Post([self = shared_from_this()] { self->Close(); });
}

// ---- supervisor ----

absl::Status ExecSession::Ask(const Options& options) {
  pb::ControlRequest request;
  request.set_sequence(1);
  for (const std::string& argument : options.argv) request.mutable_exec()->add_argv(argument);
  request.mutable_exec()->set_tty(options.tty);
  request.mutable_exec()->set_merge_stderr(options.merge_stderr);
  RETURN_IF_ERROR(SendPacket(connection_.get(), request.SerializeAsString()), "exec");
  start_timer_ = loop_->After(kStartTimeout, [self = shared_from_this()] {
    self->End(absl::DeadlineExceededError("the task's supervisor does not answer"));
  });
  if (options.timeout.count() > 0) {
    timer_ = loop_->After(options.timeout, [self = shared_from_this(), limit = options.timeout] {
      self->End(absl::DeadlineExceededError(
          absl::StrCat("the command was killed: it did not end within ", limit.count(), " ms")));
    });
  }
  return loop_->Watch(connection_.get(), EPOLLIN,
                      [self = shared_from_this()](uint32_t) { self->OnMessage(); });
}

void ExecSession::OnMessage() {
  absl::StatusOr<Packet> packet = ReceivePacket(connection_.get());
  if (absl::IsResourceExhausted(packet.status())) return;
  pb::ControlReply reply;
  if (!packet.ok() || !reply.ParseFromString(packet->data)) {
    if (!wait_status_) return End(GoneStatus());
    loop_->Unwatch(connection_.get());  // the last output is still to be read
    connection_.Reset();
    return;
  }
  if (reply.error_code() != 0) {
    return End(absl::Status(static_cast<absl::StatusCode>(reply.error_code()), reply.error()));
  }
  if (reply.has_exec_exit()) return OnExit(reply.exec_exit().wait_status());
  if (reply.sequence() != 1 || begun_) return;
  if (const absl::Status begun = Begin(std::move(packet->fds)); !begun.ok()) End(begun);
}

absl::Status ExecSession::Begin(std::vector<Fd> fds) {
  loop_->Cancel(start_timer_);
  begun_ = true;
  if (fds.size() != (tty_ ? 1 : merge_stderr_ ? 2 : 3)) {
    return absl::InternalError(absl::StrCat("exec: ", fds.size(), " descriptors came"));
  }
  for (const Fd& fd : fds) RETURN_IF_ERROR(SetNonBlocking(fd));
  if (tty_) {
    // Two descriptors, because reading and writing are waited for separately.
    ASSIGN_OR_RETURN(input_, Duplicate(fds[0].get()));
    sources_[kStdout].fd = std::move(fds[0]);
    sources_[kStderr].ended = true;
    ApplySize();
  } else {
    input_ = std::move(fds[0]);
    sources_[kStdout].fd = std::move(fds[1]);
    if (merge_stderr_) {
      sources_[kStderr].ended = true;
    } else {
      sources_[kStderr].fd = std::move(fds[2]);
    }
  }
  WatchOutput(kStdout);
  WatchOutput(kStderr);
  FlushInput();
  return absl::OkStatus();
}

void ExecSession::ApplySize() {
  if (!tty_ || !size_ || !sources_[kStdout].fd) return;
  ::ioctl(sources_[kStdout].fd.get(), TIOCSWINSZ, &*size_);  // refused by no terminal
}

// ---- output ----

void ExecSession::WatchOutput(Output output) {
  const Source& source = sources_[output];
  if (!source.fd || !source.wanted) return;
  const absl::Status watched =
      loop_->Watch(source.fd.get(), EPOLLIN,
                   [self = shared_from_this(), output](uint32_t) { self->ReadOutput(output); });
  if (!watched.ok()) End(watched);
}

void ExecSession::ReadOutput(Output output) {
  Source& source = sources_[output];
  if (!source.fd || !source.wanted) return;
  std::string bytes(kChunkBytes, '\0');
  ssize_t size;
  do {
    size = ::read(source.fd.get(), bytes.data(), bytes.size());
  } while (size < 0 && errno == EINTR);
  const bool leader_ended = wait_status_.has_value();
  if (size > 0) {
    loop_->Unwatch(source.fd.get());
    source.wanted = false;
    bytes.resize(size);
    if (tty_ && leader_ended) drained_bytes_ += bytes.size();
    const bool enough = drained_bytes_ > kMaxDrainBytes;
    handlers_.on_output(output, std::move(bytes));
    if (enough) EndOutput(output);
    return;
  }
  if (size < 0 && errno == EAGAIN && !(tty_ && leader_ended)) return;
  // EIO: nobody has the terminal open. Its leader may live and open it again.
  if (tty_ && !leader_ended) return loop_->Unwatch(source.fd.get());
  EndOutput(output);
}

void ExecSession::EndOutput(Output output) {
  Source& source = sources_[output];
  if (source.fd) loop_->Unwatch(source.fd.get());
  source.fd.Reset();
  source.ended = true;
  FinishWhenDone();
}

// ---- input ----

void ExecSession::FlushInput() {
  if (!begun_ && !input_dropped_) return;  // as soon as it has begun
  while (input_ && !pending_input_.empty()) {
    const ssize_t size = ::write(input_.get(), pending_input_.data(), pending_input_.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) {
      const absl::Status watched = loop_->Watch(
          input_.get(), EPOLLOUT, [self = shared_from_this()](uint32_t) { self->FlushInput(); });
      if (!watched.ok()) End(watched);
      return;
    }
    if (size < 0) {
      DropInput();  // EPIPE, EIO: nobody reads it
      break;
    }
    if (size > 0) line_is_open_ = pending_input_[size - 1] != '\n';
    pending_input_.erase(0, size);
  }
  if (input_) {
    loop_->Unwatch(input_.get());
  } else {
    pending_input_.clear();
  }
  if (close_input_ && input_ && tty_) {
    // In an open line the first one only hands over what was typed (termios(3), VEOF).
    close_input_ = false;
    pending_input_.assign(line_is_open_ ? 2 : 1, kEndOfFile);
    line_is_open_ = false;
    return FlushInput();
  }
  if (close_input_ && !tty_) DropInput();
  InputTaken();
}

void ExecSession::DropInput() {
  if (input_) loop_->Unwatch(input_.get());
  input_.Reset();
  input_dropped_ = true;
  pending_input_.clear();
}

void ExecSession::InputTaken() {
  if (std::exchange(writing_, false) && handlers_.on_input_taken) handlers_.on_input_taken();
}

// ---- the end ----

void ExecSession::OnExit(int wait_status) {
  wait_status_ = wait_status;
  DropInput();
  InputTaken();
  if (tty_) {
    ReadOutput(kStdout);
  } else {
    FinishWhenDone();
  }
}

void ExecSession::FinishWhenDone() {
  if (!wait_status_ || !sources_[kStdout].ended || !sources_[kStderr].ended) return;
  pb::ControlRequest release;
  release.set_sequence(2);
  release.mutable_exec_release();
  // Not received: the task is ending, and nothing stays anyway.
  if (connection_) SendPacket(connection_.get(), release.SerializeAsString()).IgnoreError();
  End(*wait_status_);
}

void ExecSession::End(absl::StatusOr<int> result) {
  const auto self = shared_from_this();  // the loop's reference may be the last one
  const std::function<void(absl::StatusOr<int>)> on_end = std::move(handlers_.on_end);
  Close();
  if (on_end) on_end(std::move(result));
}

void ExecSession::Close() {
  loop_->Cancel(start_timer_);
  loop_->Cancel(timer_);
  if (connection_) loop_->Unwatch(connection_.get());
  for (Source& source : sources_) {
    if (source.fd) loop_->Unwatch(source.fd.get());
    source.fd.Reset();
  }
  DropInput();
  connection_.Reset();
  handlers_ = Handlers();
}

}  // namespace jenkins_agent
