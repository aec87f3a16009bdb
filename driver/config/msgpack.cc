#include "driver/config/msgpack.h"

// The library's Boost parts are adaptors that nobody uses here.
#define MSGPACK_NO_BOOST
#include <limits>
#include <msgpack.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

// Receives the parser's events. A handler that returns false stops the parser.
class TreeBuilder : public msgpack::null_visitor {
 public:
  bool visit_nil() { return Add(Value{}); }
  bool visit_boolean(bool value) { return Add(Value{.data = value}); }
  bool visit_positive_integer(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Add(Value{.data = static_cast<double>(value)});
    }
    return Add(Value{.data = static_cast<int64_t>(value)});
  }
  bool visit_negative_integer(int64_t value) { return Add(Value{.data = value}); }
  bool visit_float32(float value) { return Add(Value{.data = static_cast<double>(value)}); }
  bool visit_float64(double value) { return Add(Value{.data = value}); }
  bool visit_str(const char* data, uint32_t size) {
    if (in_key_) {
      keys_.emplace_back(data, size);
      return true;
    }
    return Add(Value{.data = std::string(data, size)});
  }
  bool visit_bin(const char*, uint32_t) { return Stop("binary data"); }
  bool visit_ext(const char*, uint32_t) { return Stop("an extension type"); }

  bool start_array(uint32_t) { return Open(Value{.data = Value::List()}); }
  bool end_array() { return Close(); }
  bool start_map(uint32_t) { return Open(Value{.data = Value::Map()}); }
  bool start_map_key() {
    in_key_ = true;
    return true;
  }
  bool end_map_key() {
    in_key_ = false;
    return true;
  }
  bool end_map() { return Close(); }

  void parse_error(size_t, size_t offset) { Fail(absl::StrCat("bad byte at offset ", offset)); }
  void insufficient_bytes(size_t, size_t offset) {
    Fail(absl::StrCat("ends in the middle of a value, at offset ", offset));
  }

  const std::string& error() const { return error_; }
  Value TakeRoot() { return std::move(root_); }

 private:
  bool Add(Value value) {
    if (in_key_) return Stop("a map key that is not a string");
    if (++count_ > kMaxConfigValues) {
      return Stop(absl::StrCat("more than ", kMaxConfigValues, " values"));
    }
    return Place(std::move(value));
  }
  bool Open(Value container) {
    if (in_key_) return Stop("a map key that is not a string");
    if (open_.size() >= kMaxConfigDepth) {
      return Stop(absl::StrCat("more than ", kMaxConfigDepth, " levels"));
    }
    open_.push_back(std::move(container));
    return true;
  }
  bool Close() {
    Value closed = std::move(open_.back());
    open_.pop_back();
    return Add(std::move(closed));
  }
  bool Place(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (auto* list = std::get_if<Value::List>(&open_.back().data)) {
      list->push_back(std::move(value));
    } else {
      std::get<Value::Map>(open_.back().data)
          .push_back({std::move(keys_.back()), std::move(value)});
      keys_.pop_back();
    }
    return true;
  }
  bool Stop(const std::string& what) {
    Fail(absl::StrCat("holds ", what));
    return false;
  }
  void Fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
  }

  Value root_;
  std::vector<Value> open_;        // containers that are being filled, outermost first
  std::vector<std::string> keys_;  // one for each map in open_ that waits for a value
  bool in_key_ = false;
  size_t count_ = 0;
  std::string error_;
};

}  // namespace

absl::StatusOr<Value> ParseMsgpack(absl::string_view bytes) {
  if (bytes.size() > kMaxConfigBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "msgpack of ", bytes.size(), " bytes is too long (allowed: up to ", kMaxConfigBytes, ")"));
  }
  TreeBuilder builder;
  size_t offset = 0;
  const bool complete = msgpack::parse(bytes.data(), bytes.size(), offset, builder);
  if (!complete || !builder.error().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("not the msgpack of a configuration: ",
                     builder.error().empty() ? "it cannot be parsed" : builder.error()));
  }
  if (offset != bytes.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("not the msgpack of a configuration: ", bytes.size() - offset,
                     " bytes after the end of the value"));
  }
  return builder.TakeRoot();
}

}  // namespace jenkins_agent
