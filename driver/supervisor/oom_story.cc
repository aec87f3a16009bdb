#include "driver/supervisor/oom_story.h"

#include <signal.h>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/utf8.h"

namespace jenkins_agent {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
// A charge that fails at the limit is at most a huge page (2 MiB); whoever stayed further below was
// not killed for its own limit.
constexpr int64_t kNearLimit = 4 * kMiB;

// Names are the processes' own choice and go into events and logs.
std::string Printable(absl::string_view name) {
  std::string text = ToUtf8(name);
  for (char& c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = '?';
  }
  return text.empty() ? "?" : text;
}

bool HasKill(absl::string_view mask) {
  uint64_t signals = 0;
  return absl::SimpleHexAtoi(absl::StripAsciiWhitespace(mask), &signals) &&
         (signals & (uint64_t{1} << (SIGKILL - 1))) != 0;
}

std::string Megabytes(int64_t bytes) { return absl::StrCat(bytes / kMiB, " MiB"); }

std::string NameOf(const OomProcess& process) {
  return absl::StrCat(process.name, " (pid ", process.pid, ")");
}

std::string Victims(uint64_t killed, const std::vector<OomProcess>& known) {
  if (killed == 1 && known.empty()) return "a process that ended before it could be named";
  if (killed == 1) return NameOf(known.front());
  std::string text = absl::StrCat(killed, " processes");
  if (!known.empty()) absl::StrAppend(&text, ", among them ", NameOf(known.back()));
  return text;
}

}  // namespace

OomProcess ParseOomProcess(pid_t pid, absl::string_view status) {
  OomProcess process;
  process.pid = pid;
  bool has_memory = false;
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (absl::ConsumePrefix(&line, "Name:\t")) {
      process.name = Printable(line);
    } else if (absl::ConsumePrefix(&line, "State:\t")) {
      process.dying |= line.substr(0, 1) == "Z" || line.substr(0, 1) == "X";
    } else if (absl::ConsumePrefix(&line, "VmRSS:")) {
      has_memory = true;
    } else if (absl::ConsumePrefix(&line, "SigPnd:") || absl::ConsumePrefix(&line, "ShdPnd:")) {
      process.dying |= HasKill(line);
    }
  }
  process.dying |= !has_memory;
  return process;
}

std::string DescribeOom(uint64_t killed, const std::vector<OomProcess>& known,
                        const OomFigures& figures) {
  const auto peak = static_cast<int64_t>(figures.peak_bytes.value_or(0));
  const bool own_limit = figures.limit_bytes > 0 && (!figures.peak_bytes.has_value() ||
                                                     peak + kNearLimit >= figures.limit_bytes);
  return absl::StrCat(
      own_limit ? "out of memory: the kernel killed "
                : "the host is out of memory: the kernel killed ",
      Victims(killed, known), "; ",
      figures.limit_bytes > 0 ? absl::StrCat("limit ", Megabytes(figures.limit_bytes)) : "no limit",
      figures.peak_bytes.has_value() ? absl::StrCat(", peak ", Megabytes(peak)) : "");
}

}  // namespace jenkins_agent
