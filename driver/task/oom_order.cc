#include "driver/task/oom_order.h"

#include <fcntl.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/pidfd.h"
#include "driver/base/sandbox_paths.h"
#include "driver/base/status.h"
#include "driver/sandbox/mount_fd.h"

namespace jenkins_agent {
namespace {

constexpr char kSpawnHelper[] = "lib/jspawnhelper";

// Every sandbox has this directory, and nothing else on a host does.
bool IsInSandbox(pid_t pid) {
  return ::access(absl::StrCat("/proc/", pid, "/root", kRunDir).c_str(), F_OK) == 0;
}

// `process`: its pidfd, which shows whether the pid was still its own when it was written to.
void RaiseScore(pid_t pid, int process) {
  if (!IsInSandbox(pid)) return;
  const absl::StatusOr<Fd> file =
      OpenFile(absl::StrCat("/proc/", pid, "/oom_score_adj"), O_RDWR | O_NOFOLLOW);
  if (!file.ok() || AwaitPidfd(process, std::chrono::milliseconds(0))) return;  // it has ended
  int score = 0;
  const absl::StatusOr<std::string> text = ReadAll(file->get(), 16);
  if (!text.ok() || !absl::SimpleAtoi(absl::StripAsciiWhitespace(*text), &score)) return;
  if (score >= kBuildOomScoreAdj) return;
  WriteAll(file->get(), absl::StrCat(kBuildOomScoreAdj)).IgnoreError();  // it may end meanwhile
}

// Beside the program that it runs, <home>/bin/java. Looked up in its own root: an image's links
// lead nowhere else.
absl::StatusOr<Fd> OpenSpawnHelper(pid_t jvm) {
  std::error_code error;
  const std::filesystem::path program =
      std::filesystem::read_symlink(absl::StrCat("/proc/", jvm, "/exe"), error);
  if (error) return absl::NotFoundError(error.message());
  ASSIGN_OR_RETURN(const Fd root,
                   OpenFile(absl::StrCat("/proc/", jvm, "/root"), O_PATH | O_DIRECTORY));
  return OpenInRoot(root.get(), program.parent_path().parent_path() / kSpawnHelper);
}

// With FAN_REPORT_PIDFD one record follows each event's head (fanotify(7)).
int PidfdOf(const fanotify_event_metadata* event) {
  const auto* info = reinterpret_cast<const fanotify_event_info_pidfd*>(
      reinterpret_cast<const char*>(event) + event->metadata_len);
  const bool complete = event->event_len >= event->metadata_len + sizeof(*info);
  return complete && info->hdr.info_type == FAN_EVENT_INFO_TYPE_PIDFD ? info->pidfd : -1;
}

void TakeEvents(int group) {
  alignas(fanotify_event_metadata) char buffer[4096];
  ssize_t left = ::read(group, buffer, sizeof(buffer));
  const auto* event = reinterpret_cast<const fanotify_event_metadata*>(buffer);
  for (; left > 0 && FAN_EVENT_OK(event, left); event = FAN_EVENT_NEXT(event, left)) {
    const Fd executed(event->fd);
    const Fd process(PidfdOf(event));
    if (process) RaiseScore(event->pid, process.get());
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<OomOrder>> OomOrder::Create(EventLoop* loop) {
  auto group = std::make_shared<const Fd>(
      ::fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_PIDFD,
                      O_RDONLY | O_CLOEXEC | O_LARGEFILE));
  if (!group->valid()) return ErrnoStatus("fanotify_init");
  loop->Post([loop, group] {
    const absl::Status watched =
        loop->Watch(group->get(), EPOLLIN, [group](uint32_t) { TakeEvents(group->get()); });
    if (!watched.ok()) {
      Log(LogLevel::kWarn, "builds are not preferred by the OOM killer",
          {{"error", std::string(watched.message())}});
    }
  });
  return std::unique_ptr<OomOrder>(new OomOrder(loop, std::move(group)));
}

OomOrder::~OomOrder() {
  loop_->Post([loop = loop_, group = group_] { loop->Unwatch(group->get()); });
}

// The file itself is marked, under whatever name a sandbox sees it.
void OomOrder::Watch(pid_t jvm) {
  const absl::StatusOr<Fd> helper = OpenSpawnHelper(jvm);
  if (!helper.ok()) return;
  ::fanotify_mark(group_->get(), FAN_MARK_ADD, FAN_OPEN_EXEC, AT_FDCWD,
                  absl::StrCat("/proc/self/fd/", helper->get()).c_str());
}

}  // namespace jenkins_agent
