#include "driver/agent/exit.h"

#include <string.h>
#include <sys/wait.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace jenkins_agent {
namespace {

// The line that says most: the first one, except that a stack trace's head beats it.
std::string LauncherWords(const ExitFacts& facts) {
  for (const std::string& line : facts.first_lines) {
    if (absl::StrContains(line, "UnsupportedClassVersionError") ||
        absl::StrContains(line, "UnsupportedOperationException")) {
      return line;
    }
  }
  return facts.first_lines.empty() ? "no message" : facts.first_lines.front();
}

std::string DescribeJvmError(const ExitFacts& facts, absl::string_view agent_name) {
  std::string text =
      absl::StrCat("the JDK cannot run agent '", agent_name, "': ", LauncherWords(facts));
  if (absl::StrContains(text, "Security Manager")) {
    absl::StrAppend(&text, "; this agent needs a JDK older than 24 (java_home, java_version)");
  } else if (absl::StrContains(text, "UnsupportedClassVersionError")) {
    absl::StrAppend(&text, "; it needs a newer JDK (java_home, java_version)");
  }
  return text;
}

// The JVM's last word under -XX:+ExitOnOutOfMemoryError, with which it exits with code 3.
constexpr absl::string_view kHeapWords = "Terminating due to java.lang.OutOfMemoryError: ";
constexpr int kHeapExitCode = 3;

bool IsHeapExhausted(const ExitFacts& facts) {
  return WIFEXITED(facts.wait_status) && WEXITSTATUS(facts.wait_status) == kHeapExitCode &&
         absl::StartsWith(facts.last_error, kHeapWords);
}

std::string DescribeHeapExhausted(const ExitFacts& facts) {
  return absl::StrCat("the agent's JVM has used up its own memory (",
                      absl::StripPrefix(facts.last_error, kHeapWords), ") while ",
                      PhaseName(facts.phase),
                      "; raise -Xmx in jvm_options, or the task's memory, of which its heap is a "
                      "quarter, 64 to 256 MiB");
}

std::string DescribePlainExit(const ExitFacts& facts) {
  if (IsHeapExhausted(facts)) return DescribeHeapExhausted(facts);
  const int status = facts.wait_status;
  std::string text = WIFSIGNALED(status)
                         ? absl::StrCat("the agent's JVM was killed by signal ", WTERMSIG(status),
                                        " (", ::strsignal(WTERMSIG(status)), ")")
                         : absl::StrCat("the agent's JVM exited with code ", WEXITSTATUS(status));
  absl::StrAppend(&text, " while ", PhaseName(facts.phase));
  if (!facts.last_error.empty()) absl::StrAppend(&text, ": ", facts.last_error);
  return text;
}

}  // namespace

ExitFacts MakeExitFacts(const PhaseTracker& tracker, int wait_status) {
  return ExitFacts{
      .wait_status = wait_status,
      .phase = tracker.phase(),
      .connected_in_this_launch = tracker.connected_in_this_launch(),
      .ever_connected = tracker.ever_connected(),
      .refusal = tracker.refusal(),
      .unreachable = tracker.unreachable(),
      .usage_error = tracker.usage_error(),
      .jvm_error = tracker.jvm_error(),
      .last_error = tracker.last_error(),
      .first_lines = tracker.first_lines(),
  };
}

ExitCause ClassifyExit(const ExitFacts& facts) {
  // A kill says nothing about what the agent was about to do.
  if (!WIFEXITED(facts.wait_status)) return ExitCause::kOther;
  const bool began = facts.phase > pb::PHASE_STARTING;
  if (facts.usage_error && !began) return ExitCause::kUsageError;
  if (facts.jvm_error && !began && WEXITSTATUS(facts.wait_status) != 0) return ExitCause::kJvmError;
  if (facts.refusal != Refusal::kNone && facts.phase == pb::PHASE_REFUSED) {
    return ExitCause::kRefused;
  }
  if (facts.unreachable != Unreachable::kNone) return ExitCause::kUnreachable;
  return ExitCause::kOther;
}

int ExitCodeOf(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

std::string DescribeRefusal(absl::string_view agent_name, Refusal refusal,
                            absl::string_view reason) {
  return absl::StrCat("the controller refused agent '", agent_name, "': ", RefusalName(refusal),
                      " (", reason, ")");
}

std::string DescribeExit(const ExitFacts& facts, absl::string_view agent_name) {
  switch (ClassifyExit(facts)) {
    case ExitCause::kUsageError:
      return absl::StrCat("the agent did not accept its arguments: ", LauncherWords(facts));
    case ExitCause::kJvmError:
      return DescribeJvmError(facts, agent_name);
    case ExitCause::kRefused:
      return DescribeRefusal(agent_name, facts.refusal, facts.last_error);
    case ExitCause::kUnreachable:
      return absl::StrCat("the controller cannot be reached: ", facts.last_error);
    case ExitCause::kOther:
      break;
  }
  return DescribePlainExit(facts);
}

}  // namespace jenkins_agent
