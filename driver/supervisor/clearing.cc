#include "driver/supervisor/clearing.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/agent/leftovers.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxEnvironment =
    4 << 20;  // more than exec takes (ARG_MAX of a default stack: 2 MiB)
constexpr size_t kMaxErrorText = 500;

// ---- the process that clears ----

// The session of a process as its own pid namespace numbers it; 0 when it is gone.
pid_t SessionInSandbox(pid_t pid) {
  const absl::StatusOr<std::string> status = ReadFile(absl::StrCat("/proc/", pid, "/status"));
  if (!status.ok()) return 0;
  for (absl::string_view line : absl::StrSplit(*status, '\n')) {
    if (!absl::ConsumePrefix(&line, "NSsid:")) continue;
    const std::vector<absl::string_view> numbers = absl::StrSplit(line, '\t', absl::SkipEmpty());
    pid_t session;
    if (!numbers.empty() && absl::SimpleAtoi(numbers.back(), &session)) return session;
  }
  return 0;
}

bool IsSpared(pid_t pid, const Clearing::Rule& rule) {
  const pid_t session = SessionInSandbox(pid);
  const auto& spared = rule.spared_sessions;
  if (session != 0 && std::find(spared.begin(), spared.end(), session) != spared.end()) return true;
  if (!rule.spare_durable) return false;
  const auto environment = ReadFile(absl::StrCat("/proc/", pid, "/environ"), kMaxEnvironment);
  return environment.ok() && OutlivesItsAgent(*environment);
}

// A count, or a text: what the supervisor reads from the pipe.
[[noreturn]] void Clear(const cgroups::Cgroup& cgroup, const Clearing::Rule& rule, int answer) {
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
  (void)::prctl(PR_SET_NAME, "ja-clearing");
  const absl::StatusOr<size_t> ended =
      cgroup.KillChosen([&](pid_t pid) { return !IsSpared(pid, rule); }, Clearing::kLimit);
  const std::string text = ended.ok()
                               ? absl::StrCat(*ended)
                               : std::string(ended.status().message().substr(0, kMaxErrorText));
  ::_exit(WriteAll(answer, text).ok() ? 0 : 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Clearing>> Clearing::Start(EventLoop* loop,
                                                          const cgroups::Cgroup& cgroup,
                                                          const Rule& rule, OnEnd on_end) {
  ASSIGN_OR_RETURN(Pipe answer, MakePipe());
  const pid_t pid = ::fork();
  if (pid < 0) return ErrnoStatus("fork");
  if (pid == 0) Clear(cgroup, rule, answer.write.get());
  std::unique_ptr<Clearing> clearing(new Clearing(loop, cgroup, std::move(on_end)));
  clearing->pid_ = pid;
  clearing->answer_ = std::move(answer.read);
  RETURN_IF_ERROR(loop->Watch(clearing->answer_.get(), EPOLLIN,
                              [self = clearing.get()](uint32_t) { self->OnAnswer(); }));
  clearing->timer_ = loop->After(kLimit, [self = clearing.get()] { self->OnLate(); });
  return clearing;
}

Clearing::~Clearing() { Stop(); }

void Clearing::OnAnswer() {
  const absl::StatusOr<std::string> text = ReadAll(answer_.get(), kMaxErrorText);
  (void)::waitpid(std::exchange(pid_, 0), nullptr, 0);  // its exit has closed the pipe
  size_t ended;
  if (text.ok() && absl::SimpleAtoi(*text, &ended)) return Finish(ended);
  cgroup_.Thaw().IgnoreError();  // it died in the middle, or says what went wrong
  Finish(absl::InternalError(text.ok() && !text->empty() ? *text : "the clearing process died"));
}

void Clearing::OnLate() {
  Finish(absl::DeadlineExceededError(
      absl::StrCat("leftover processes: not looked through within ", kLimit.count(), " s")));
}

void Clearing::Finish(absl::StatusOr<size_t> result) {
  Stop();
  on_end_(std::move(result));  // may destroy this object
}

// Killed in the middle it leaves the crowd frozen. A process of ours that hangs in the kernel is
// reaped by whoever inherits it.
void Clearing::Stop() {
  loop_->Cancel(timer_);
  if (answer_) loop_->Unwatch(answer_.get());
  answer_.Reset();
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);  // not reaped yet: the number is still its own
  (void)::waitpid(pid_, nullptr, WNOHANG);
  pid_ = 0;
  cgroup_.Thaw().IgnoreError();  // best effort: the end of the task thaws too
}

}  // namespace jenkins_agent
