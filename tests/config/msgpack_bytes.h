// msgpack written by hand, in the shapes that Nomad delivers (nomad-driver-protocol.md Appendix A).
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

inline std::string Hex(absl::string_view hex) { return absl::HexStringToBytes(hex); }

inline const std::string kNil = "\xc0";
inline const std::string kTrue = "\xc3";
inline const std::string kFalse = "\xc2";

// fixstr, str8, str16 or str32, the smallest that fits, as Nomad does.
inline std::string Str(const std::string& text) {
  const size_t size = text.size();
  const auto byte = [size](int shift) { return static_cast<char>(size >> shift); };
  if (size < 32) return std::string(1, static_cast<char>(0xa0 | size)) + text;
  if (size < 256) return std::string("\xd9") + byte(0) + text;
  if (size < 65536) return std::string("\xda") + byte(8) + byte(0) + text;
  return std::string("\xdb") + byte(24) + byte(16) + byte(8) + byte(0) + text;
}

// uint16, which holds any small number.
inline std::string Num(int number) {
  return std::string("\xcd") + static_cast<char>(number >> 8) + static_cast<char>(number);
}

// At most 15 elements.
inline std::string List(const std::vector<std::string>& elements) {
  std::string bytes(1, static_cast<char>(0x90 | elements.size()));
  for (const std::string& element : elements) bytes += element;
  return bytes;
}
inline std::string Map(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string bytes(1, static_cast<char>(0x80 | entries.size()));
  for (const auto& [key, value] : entries) bytes += Str(key) + value;
  return bytes;
}
inline std::string Strings(const std::vector<std::string>& texts) {
  std::vector<std::string> elements;
  for (const std::string& text : texts) elements.push_back(Str(text));
  return List(elements);
}

}  // namespace jenkins_agent
