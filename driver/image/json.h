// JSON that registries and archives wrote: hostile, bounded in depth, never an exception.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace jenkins_agent {

using Json = nlohmann::json;

inline constexpr int kMaxJsonDepth = 32;

// One JSON object; InvalidArgument for anything else, and for what is nested too deeply.
absl::StatusOr<Json> ParseJsonObject(absl::string_view text);

// The same for a list.
absl::StatusOr<Json> ParseJsonArray(absl::string_view text);

// A member of an object. An absent or null one leaves `value` as it is; one of another type is
// InvalidArgument, naming the key. Strings hold no NUL.
absl::Status ReadMember(const Json& object, const char* key, std::string& value);
absl::Status ReadMember(const Json& object, const char* key, int64_t& value);
absl::Status ReadMember(const Json& object, const char* key, std::vector<std::string>& value);

}  // namespace jenkins_agent
