#include "driver/task/signals.h"

#include <signal.h>

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace jenkins_agent {
namespace {

constexpr std::pair<absl::string_view, int> kSignals[] = {
    {"ABRT", SIGABRT}, {"ALRM", SIGALRM}, {"BUS", SIGBUS},       {"CHLD", SIGCHLD},
    {"CONT", SIGCONT}, {"FPE", SIGFPE},   {"HUP", SIGHUP},       {"ILL", SIGILL},
    {"INT", SIGINT},   {"IO", SIGIO},     {"IOT", SIGIOT},       {"KILL", SIGKILL},
    {"PIPE", SIGPIPE}, {"PROF", SIGPROF}, {"QUIT", SIGQUIT},     {"SEGV", SIGSEGV},
    {"STOP", SIGSTOP}, {"SYS", SIGSYS},   {"TERM", SIGTERM},     {"TRAP", SIGTRAP},
    {"TSTP", SIGTSTP}, {"TTIN", SIGTTIN}, {"TTOU", SIGTTOU},     {"URG", SIGURG},
    {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"VTALRM", SIGVTALRM}, {"WINCH", SIGWINCH},
    {"XCPU", SIGXCPU}, {"XFSZ", SIGXFSZ}, {"NULL", 0},
};

}  // namespace

absl::StatusOr<int> ParseSignal(absl::string_view name) {
  int number;
  if (absl::SimpleAtoi(name, &number) && number >= 0 && number < NSIG) return number;
  const std::string upper = absl::AsciiStrToUpper(name);
  const absl::string_view short_name = absl::StripPrefix(upper, "SIG");
  for (const auto& [known, value] : kSignals) {
    if (short_name == known) return value;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown signal '", name,
                   "'; use a name such as SIGTERM, SIGHUP or SIGQUIT, or a number below ", NSIG));
}

}  // namespace jenkins_agent
