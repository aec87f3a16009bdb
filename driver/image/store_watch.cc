#include "driver/image/store_watch.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "driver/base/status.h"
#include "driver/image/store.h"

namespace jenkins_agent {
namespace {

// A record that is replaced comes by a rename, too; what is being written is not looked at.
constexpr uint32_t kChanges = IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr uint32_t kGone = IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED;

}  // namespace

absl::StatusOr<std::unique_ptr<StoreWatch>> StoreWatch::Start(EventLoop* loop,
                                                              const std::string& dir,
                                                              std::function<void()> on_change) {
  Fd inotify(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!inotify) return ErrnoStatus("inotify_init1");
  for (const char* folder : {kStoreRefs, kStorePins}) {
    const std::string path = absl::StrCat(dir, "/", folder);
    if (::inotify_add_watch(inotify.get(), path.c_str(), kChanges) < 0) {
      return ErrnoStatus(absl::StrCat("watch ", path));
    }
  }
  std::unique_ptr<StoreWatch> watch(new StoreWatch(loop, std::move(inotify), std::move(on_change)));
  RETURN_IF_ERROR(loop->Watch(watch->inotify_.get(), EPOLLIN,
                              [raw = watch.get()](uint32_t) { raw->OnEvents(); }));
  return watch;
}

StoreWatch::~StoreWatch() { loop_->Unwatch(inotify_.get()); }

// What happened is of no interest: whoever wants to know reads the store.
void StoreWatch::OnEvents() {
  alignas(inotify_event) char buffer[4096];  // some 80 events of records
  const ssize_t size = ::read(inotify_.get(), buffer, sizeof(buffer));
  for (ssize_t at = 0; at < size;) {
    inotify_event event = {};
    std::memcpy(&event, buffer + at, sizeof(event));
    if ((event.mask & kGone) != 0) alive_ = false;
    at += static_cast<ssize_t>(sizeof(event)) + event.len;
  }
  if (size > 0) on_change_();
}

}  // namespace jenkins_agent
