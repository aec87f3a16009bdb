#include "driver/base/utf8.h"

#include <algorithm>
#include <cstdint>

namespace jenkins_agent {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

// Bytes of the character that `text` begins with; 0 when it begins with none.
size_t CharacterSize(absl::string_view text) {
  const auto at = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = at(0);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong = (first == 0xE0 && at(1) < 0xA0) || (first == 0xF0 && at(1) < 0x90);
  const bool surrogate = first == 0xED && at(1) >= 0xA0;
  const bool too_large = first == 0xF4 && at(1) >= 0x90;
  return overlong || surrogate || too_large ? 0 : size;
}

}  // namespace

bool IsUtf8(absl::string_view text) {
  while (!text.empty()) {
    const size_t size = CharacterSize(text);
    if (size == 0) return false;
    text.remove_prefix(size);
  }
  return true;
}

std::string ToUtf8(absl::string_view text) {
  std::string utf8;
  utf8.reserve(text.size());
  while (!text.empty()) {
    const size_t size = CharacterSize(text);
    if (size == 0) {
      utf8 += kReplacement;
    } else {
      utf8.append(text.data(), size);
    }
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return utf8;
}

bool ContinuesCharacter(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

size_t CountCharacters(absl::string_view text) {
  return text.size() - std::count_if(text.begin(), text.end(), ContinuesCharacter);
}

}  // namespace jenkins_agent
