#include "driver/supervisor/oom_log.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "driver/base/utf8.h"

namespace jenkins_agent {
namespace {

constexpr int64_t kRecentUs = 5'000'000;
constexpr int kMaxRecords = 1 << 16;
constexpr size_t kRecordBytes = 8192;  // CONSOLE_EXT_LOG_MAX: a smaller buffer is EINVAL

// "tail,pid=4242,uid=20001" and, behind a line's end, what else the record has. The name may hold
// anything, so the numbers are looked for from the end.
std::optional<OomProcess> ParseVictim(absl::string_view text) {
  text = text.substr(0, text.find('\n'));
  const size_t uid = text.rfind(",uid=");
  const size_t pid = text.substr(0, uid).rfind(",pid=");
  if (uid == text.npos || pid == text.npos) return std::nullopt;
  absl::string_view number = text.substr(pid, uid - pid);
  absl::ConsumePrefix(&number, ",pid=");
  OomProcess victim;
  if (!absl::SimpleAtoi(number, &victim.pid)) return std::nullopt;
  victim.name = ToUtf8(text.substr(0, pid));
  victim.dying = true;
  return victim;
}

}  // namespace

std::optional<OomLogRecord> ParseOomLogRecord(absl::string_view record, absl::string_view cgroup) {
  const size_t head_bytes = record.find(';');
  if (head_bytes == record.npos) return std::nullopt;
  const std::vector<absl::string_view> head = absl::StrSplit(record.substr(0, head_bytes), ',');
  OomLogRecord parsed;
  if (head.size() < 3 || !absl::SimpleAtoi(head[2], &parsed.time_us)) return std::nullopt;
  absl::string_view text = record.substr(head_bytes + 1);
  if (!absl::ConsumePrefix(&text, "oom-kill:constraint=")) return parsed;
  // The first one: no process has its name before its cgroup.
  const std::string place = absl::StrCat("/", cgroup, ",task=");
  const size_t found = text.find(place);
  if (found != text.npos) parsed.victim = ParseVictim(text.substr(found + place.size()));
  return parsed;
}

std::vector<OomProcess> ReadOomLog(absl::string_view cgroup) {
  const absl::StatusOr<Fd> log = OpenFile("/dev/kmsg", O_RDONLY | O_NONBLOCK);
  if (!log.ok()) return {};
  std::vector<OomLogRecord> kills;
  int64_t newest_us = 0;
  char buffer[kRecordBytes];
  for (int i = 0; i < kMaxRecords; ++i) {
    const ssize_t size = ::read(log->get(), buffer, sizeof(buffer));
    if (size < 0 && errno == EPIPE) continue;  // what comes next was overwritten meanwhile
    if (size <= 0) break;                      // EAGAIN: the end
    std::optional<OomLogRecord> record =
        ParseOomLogRecord({buffer, static_cast<size_t>(size)}, cgroup);
    if (!record.has_value()) continue;
    newest_us = std::max(newest_us, record->time_us);
    if (record->victim.has_value()) kills.push_back(*std::move(record));
  }
  std::vector<OomProcess> victims;
  for (const OomLogRecord& kill : kills) {
    if (newest_us - kill.time_us <= kRecentUs) victims.push_back(*kill.victim);
  }
  return victims;
}

}  // namespace jenkins_agent
