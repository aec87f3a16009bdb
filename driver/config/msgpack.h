// msgpack as Nomad delivers configuration in it -> a tree of values. Pure; the only user of the
// msgpack library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

inline constexpr size_t kMaxConfigBytes = 1 << 20;
inline constexpr size_t kMaxConfigValues = 1 << 14;
inline constexpr size_t kMaxConfigDepth = 8;  // our schemas need 4

struct Entry;

struct Value {
  using List = std::vector<Value>;
  using Map = std::vector<Entry>;  // in the order received
  // Integers beyond int64 become a double, as they are out of every option's range.
  std::variant<std::monostate, bool, int64_t, double, std::string, List, Map> data;

  bool is_nil() const { return std::holds_alternative<std::monostate>(data); }
};

struct Entry {
  std::string key;
  Value value;
};

// Parses exactly one value. Any integer width and float width is accepted; binary and extension
// types and keys that are no strings, which Nomad never sends, are errors, as is anything beyond
// the limits above or after the value.
absl::StatusOr<Value> ParseMsgpack(absl::string_view bytes);

}  // namespace jenkins_agent
