// A configuration's msgpack -> the struct behind an option table. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "driver/config/options.h"

namespace jenkins_agent {

// The kernel's limit for one argument of a program (MAX_ARG_STRLEN, 32 pages, with the final NUL);
// no option has a use for a longer string.
inline constexpr size_t kMaxOptionBytes = 131071;

// Writes each option that is set to where the table points. nil and absence keep the value that is
// there, an unknown key is ignored (an older plugin may meet a newer job), nil elements of lists
// and maps are left out. Empty `msgpack` sets nothing. Errors start with the option's path.
absl::Status DecodeOptions(absl::string_view msgpack, const std::vector<Option>& options);

}  // namespace jenkins_agent
