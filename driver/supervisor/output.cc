#include "driver/supervisor/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {

absl::Status Output::OpenSink() {
  if (files_) return files_->Open();
  // Without a reader, O_WRONLY|O_NONBLOCK of a FIFO fails with ENXIO (fifo(7)). O_NOFOLLOW: jobs of
  // the allocation can write into the FIFO's directory.
  const int fd =
      ::open(sink_path_.c_str(), O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_APPEND | O_CLOEXEC);
  if (fd < 0 && errno != ENXIO) return ErrnoStatus(absl::StrCat("open ", sink_path_));
  sink_.Reset(fd);
  return absl::OkStatus();
}

absl::Status Output::Start(Fd source, std::function<void()> on_end) {
  source_ = std::move(source);
  on_end_ = std::move(on_end);
  if (::fcntl(source_.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus("O_NONBLOCK");
  RETURN_IF_ERROR(loop_->Watch(source_.get(), EPOLLIN, [this](uint32_t) { OnReadable(); }));
  if (!sink_ && !files_) Stall(/*sink_is_open=*/false);
  return absl::OkStatus();
}

void Output::Close() {
  loop_->Cancel(patience_);
  loop_->Cancel(reopen_);
  if (source_) loop_->Unwatch(source_.get());
  if (sink_) loop_->Unwatch(sink_.get());
  source_.Reset();
  sink_.Reset();
}

void Output::HoldBack(bool held_back) {
  held_back_ = held_back;
  if (held_back_ && source_) return loop_->Unwatch(source_.get());
  WatchSource();
}

void Output::WatchSource() {
  if (!source_ || held_back_ || (stalled_ && !dropping_)) return;
  // Cannot fail: the descriptor was watched before.
  loop_->Watch(source_.get(), EPOLLIN, [this](uint32_t) { OnReadable(); }).IgnoreError();
}

void Output::OnReadable() {
  ReadOnce();
  MaybeEnd();
}

size_t Output::ReadOnce() {
  char buffer[kChunkBytes];
  ssize_t size;
  do {
    size = ::read(source_.get(), buffer, sizeof(buffer));
  } while (size < 0 && errno == EINTR);
  if (size > 0) {
    Take(absl::string_view(buffer, size));
    return size;
  }
  if (size < 0 && errno == EAGAIN) return 0;
  loop_->Unwatch(source_.get());
  source_.Reset();
  return 0;
}

void Output::Drain() {
  for (size_t total = 0; source_ && total < kMaxDrainBytes;) {
    const size_t size = ReadOnce();
    if (size == 0) break;
    total += size;
  }
  MaybeEnd();
}

void Output::Take(absl::string_view bytes) {
  if (on_bytes_) on_bytes_(bytes);
  if (files_) {
    const uint64_t before = files_->dropped_total();
    files_->Append(bytes);
    return CountDropped(files_->dropped_total() - before);
  }
  if (dropping_) {
    dropped_bytes_ += bytes.size();
    return CountDropped(bytes.size());
  }
  pending_.append(bytes.data(), bytes.size());
  if (!stalled_) WritePending();
}

void Output::WritePending() {
  size_t done = 0;
  while (done < pending_.size()) {
    const ssize_t size = ::write(sink_.get(), pending_.data() + done, pending_.size() - done);
    if (size >= 0) {
      done += size;
      continue;
    }
    if (errno == EINTR) continue;
    const bool full = errno == EAGAIN;
    pending_.erase(0, done);
    return full ? Stall(/*sink_is_open=*/true) : OnSinkGone();
  }
  std::string().swap(pending_);  // an idle supervisor keeps no buffer
  OnFlushed();
}

// EPIPE: Nomad's log reader died; Nomad starts another one on the same FIFO.
void Output::OnSinkGone() {
  loop_->Unwatch(sink_.get());
  sink_.Reset();
  Stall(/*sink_is_open=*/false);
}

void Output::Stall(bool sink_is_open) {
  if (!stalled_ && !dropping_) {
    if (source_) loop_->Unwatch(source_.get());
    loop_->Cancel(patience_);
    patience_ = loop_->After(patience_limit_, [this] { OnPatienceOver(); });
  }
  stalled_ = true;
  loop_->Cancel(reopen_);
  if (!sink_is_open) {
    reopen_ = loop_->After(kReopenDelay, [this] { Reopen(); });
  } else if (!loop_->Watch(sink_.get(), EPOLLOUT, [this](uint32_t) { WritePending(); }).ok()) {
    OnPatienceOver();  // a sink that is full and cannot be waited for
  }
}

void Output::Reopen() {
  if (!OpenSink().ok() || !sink_) return Stall(/*sink_is_open=*/false);
  WritePending();
}

void Output::OnPatienceOver() {
  dropping_ = true;
  dropped_bytes_ += pending_.size();
  CountDropped(pending_.size());
  std::string().swap(pending_);
  WatchSource();
  MaybeEnd();
}

// The sink has taken everything that was waiting for it.
void Output::OnFlushed() {
  if (stalled_) {
    stalled_ = false;
    loop_->Cancel(patience_);
    loop_->Unwatch(sink_.get());
    WatchSource();
  }
  if (dropping_) {
    dropping_ = false;
    TellDropped();
    pending_ = absl::StrCat("\n[nomad-driver-jenkins-agent: ", std::exchange(dropped_bytes_, 0),
                            " bytes of output dropped: the log was not read for too long]\n");
    return WritePending();
  }
  MaybeEnd();
}

void Output::CountDropped(uint64_t bytes) {
  untold_dropped_ += bytes;
  if (!told_dropped_ || untold_dropped_ >= kDroppedPortion) TellDropped();
}

void Output::TellDropped() {
  if (untold_dropped_ == 0 || !on_dropped_) return;
  told_dropped_ = true;
  on_dropped_(std::exchange(untold_dropped_, 0));
}

void Output::MaybeEnd() {
  if (ended_ || source_ || !pending_.empty()) return;
  ended_ = true;
  if (files_) files_->Finish();
  TellDropped();
  if (on_end_) on_end_();
}

}  // namespace jenkins_agent
