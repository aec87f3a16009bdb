// Tables and figures as an operator reads them.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

// Each line ends with a newline and has no blanks at its end; columns are two blanks apart, the
// last one takes what it needs. `width` > 0: longer lines are cut to so many characters, "..." at
// their end. Rows may be shorter than the header.
std::string FormatTable(const std::vector<std::string>& header,
                        const std::vector<std::vector<std::string>>& rows, size_t width);

// Text that came from outside, for a terminal: valid UTF-8 on one line, control characters are '?'.
std::string Plain(absl::string_view text);

// "512B", "1.5KiB", "180MiB", "2.0GiB".
std::string HumanBytes(uint64_t bytes);
// "0s", "59s", "4m12s", "2h05m", "3d04h". Less than nothing, as after a change of the clock: "0s".
std::string HumanDuration(std::chrono::nanoseconds duration);

// Columns of the terminal that stdout is; 0: it is none, or does not say.
size_t OutputWidth();

}  // namespace jenkins_agent
