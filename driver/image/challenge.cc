#include "driver/image/challenge.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "driver/base/status.h"
#include "driver/image/json.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxChallenges = 8;
constexpr int64_t kMaxLifetime = 3600;

bool IsTokenChar(char c) {
  return absl::ascii_isalnum(c) || absl::StrContains("!#$%&'*+-.^_`|~", c);
}

absl::string_view TakeWord(absl::string_view& text) {
  size_t end = 0;
  while (end < text.size() && IsTokenChar(text[end])) ++end;
  const absl::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

void SkipBlanks(absl::string_view& text) { text = absl::StripLeadingAsciiWhitespace(text); }

// A word or a quoted string; false when it is neither.
bool TakeValue(absl::string_view& text, std::string& value) {
  if (!absl::ConsumePrefix(&text, "\"")) {
    value = std::string(TakeWord(text));
    return !value.empty();
  }
  value.clear();
  while (!text.empty() && text.front() != '"') {
    if (text.front() == '\\' && text.size() > 1) text.remove_prefix(1);
    value += text.front();
    text.remove_prefix(1);
  }
  return absl::ConsumePrefix(&text, "\"");
}

}  // namespace

std::vector<Challenge> ParseChallenges(absl::string_view header) {
  std::vector<Challenge> challenges;
  while (challenges.size() < kMaxChallenges) {
    SkipBlanks(header);
    if (absl::ConsumePrefix(&header, ",")) continue;
    const absl::string_view word = TakeWord(header);
    if (word.empty()) break;
    SkipBlanks(header);
    if (!absl::ConsumePrefix(&header, "=")) {
      challenges.push_back({.scheme = absl::AsciiStrToLower(word), .parameters = {}});
      continue;
    }
    SkipBlanks(header);
    std::string value;
    if (challenges.empty() || !TakeValue(header, value)) break;
    challenges.back().parameters[absl::AsciiStrToLower(word)] = value;
  }
  return challenges;
}

absl::StatusOr<Token> ParseToken(absl::string_view text) {
  ASSIGN_OR_RETURN(const Json answer, ParseJsonObject(text));
  Token token;
  RETURN_IF_ERROR(ReadMember(answer, "access_token", token.value));
  RETURN_IF_ERROR(ReadMember(answer, "token", token.value));
  RETURN_IF_ERROR(ReadMember(answer, "expires_in", token.lifetime_s));
  token.lifetime_s = std::clamp<int64_t>(token.lifetime_s, 0, kMaxLifetime);
  const auto is_visible = [](char c) { return absl::ascii_isgraph(c); };
  // It becomes part of a header.
  if (token.value.empty() || !std::all_of(token.value.begin(), token.value.end(), is_visible)) {
    return absl::InvalidArgumentError("holds no token");
  }
  return token;
}

}  // namespace jenkins_agent
