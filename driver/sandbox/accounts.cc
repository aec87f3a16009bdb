#include "driver/sandbox/accounts.h"

#include <algorithm>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace jenkins_agent {
namespace {

// Fields of passwd(5) and group(5): both start with name, password, number.
constexpr size_t kName = 0;
constexpr size_t kNumber = 2;
constexpr size_t kGid = 3;
constexpr size_t kMembers = 3;
constexpr size_t kHome = 5;
constexpr size_t kPasswdFields = 7;
constexpr size_t kMaxGroups = 1024;

using Line = std::vector<std::string>;

std::vector<Line> Parse(absl::string_view text) {
  std::vector<Line> lines;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines.push_back(absl::StrSplit(line, ':'));
  }
  return lines;
}

std::string Print(const std::vector<Line>& lines) {
  std::string text;
  for (const Line& line : lines) absl::StrAppend(&text, absl::StrJoin(line, ":"), "\n");
  return text;
}

Line* FindNumber(std::vector<Line>& lines, uint32_t number) {
  for (Line& line : lines) {
    if (line.size() > kNumber && line[kNumber] == absl::StrCat(number)) return &line;
  }
  return nullptr;
}

std::string FreeName(const std::vector<Line>& lines, absl::string_view name, uint32_t number) {
  if (name.empty()) return absl::StrCat("task-", number);
  for (const Line& line : lines) {
    if (line[kName] == std::string(name)) return absl::StrCat("task-", number);
  }
  return std::string(name);
}

std::optional<PasswdEntry> EntryOf(const Line& line) {
  PasswdEntry entry;
  if (line.size() != kPasswdFields || !absl::SimpleAtoi(line[kNumber], &entry.uid) ||
      !absl::SimpleAtoi(line[kGid], &entry.gid)) {
    return std::nullopt;
  }
  entry.name = line[kName];
  entry.home = line[kHome];
  return entry;
}

// The line whose `field` is `text` and which `read` understands.
template <typename Read>
auto FindField(const std::vector<Line>& lines, size_t field, absl::string_view text, Read read)
    -> decltype(read(Line())) {
  for (const Line& line : lines) {
    if (line.size() <= field || line[field] != text) continue;
    if (auto found = read(line)) return found;
  }
  return std::nullopt;
}

}  // namespace

std::string PasswdWithUser(absl::string_view passwd, absl::string_view name, uint32_t uid,
                           uint32_t gid, absl::string_view home) {
  std::vector<Line> lines = Parse(passwd);
  if (Line* line = FindNumber(lines, uid); line == nullptr) {
    lines.push_back({FreeName(lines, name, uid), "x", absl::StrCat(uid), absl::StrCat(gid), "",
                     std::string(home), "/bin/sh"});
  } else if (line->size() == kPasswdFields) {
    (*line)[kHome] = std::string(home);
  }
  return Print(lines);
}

std::string GroupWithGroup(absl::string_view group, absl::string_view name, uint32_t gid) {
  std::vector<Line> lines = Parse(group);
  if (FindNumber(lines, gid) == nullptr) {
    lines.push_back({FreeName(lines, name, gid), "x", absl::StrCat(gid), ""});
  }
  return Print(lines);
}

std::optional<PasswdEntry> FindUser(absl::string_view passwd, absl::string_view name_or_uid) {
  const std::vector<Line> lines = Parse(passwd);
  auto found = FindField(lines, kName, name_or_uid, &EntryOf);
  return found ? found : FindField(lines, kNumber, name_or_uid, &EntryOf);
}

std::optional<uint32_t> FindGroup(absl::string_view group, absl::string_view name_or_gid) {
  const auto gid_of = [](const Line& line) -> std::optional<uint32_t> {
    uint32_t gid = 0;
    if (line.size() <= kNumber || !absl::SimpleAtoi(line[kNumber], &gid)) return std::nullopt;
    return gid;
  };
  const std::vector<Line> lines = Parse(group);
  const auto found = FindField(lines, kName, name_or_gid, gid_of);
  return found ? found : FindField(lines, kNumber, name_or_gid, gid_of);
}

std::vector<uint32_t> GroupsWithMember(absl::string_view group, absl::string_view user_name) {
  std::vector<uint32_t> groups;
  for (const Line& line : Parse(group)) {
    uint32_t gid = 0;
    if (line.size() <= kMembers || !absl::SimpleAtoi(line[kNumber], &gid)) continue;
    const std::vector<absl::string_view> members = absl::StrSplit(line[kMembers], ',');
    if (std::find(members.begin(), members.end(), user_name) == members.end()) continue;
    if (groups.size() < kMaxGroups) groups.push_back(gid);
  }
  return groups;
}

}  // namespace jenkins_agent
