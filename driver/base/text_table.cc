#include "driver/base/text_table.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "driver/base/utf8.h"

namespace jenkins_agent {
namespace {

constexpr char kGap[] = "  ";
constexpr char kCut[] = "...";

std::string Cut(const std::string& line, size_t width) {
  if (width == 0 || CountCharacters(line) <= width) return line;
  const size_t kept = width - std::min(width, sizeof(kCut) - 1);
  size_t end = 0;
  for (size_t characters = 0; end < line.size(); ++end) {
    if (!ContinuesCharacter(line[end]) && ++characters > kept) break;
  }
  return line.substr(0, end) + std::string(kCut, std::min(width, sizeof(kCut) - 1));
}

std::string Line(const std::vector<std::string>& cells, const std::vector<size_t>& widths) {
  std::string line;
  for (size_t column = 0; column < cells.size(); ++column) {
    if (column > 0) line += kGap;
    line += cells[column];
    if (column + 1 < widths.size())
      line.append(widths[column] - CountCharacters(cells[column]), ' ');
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

std::string FormatTable(const std::vector<std::string>& header,
                        const std::vector<std::vector<std::string>>& rows, size_t width) {
  std::vector<size_t> widths;
  for (const std::string& title : header) widths.push_back(CountCharacters(title));
  for (const std::vector<std::string>& row : rows) {
    for (size_t column = 0; column < row.size(); ++column) {
      widths[column] = std::max(widths[column], CountCharacters(row[column]));
    }
  }
  std::string table = Cut(Line(header, widths), width) + "\n";
  for (const std::vector<std::string>& row : rows) {
    absl::StrAppend(&table, Cut(Line(row, widths), width), "\n");
  }
  return table;
}

std::string Plain(absl::string_view text) {
  std::string plain = ToUtf8(text);
  // C0 and DEL; in UTF-8 C1, which some terminals act on, is C2 80 to C2 9F.
  for (size_t i = 0; i < plain.size(); ++i) {
    const auto byte = static_cast<uint8_t>(plain[i]);
    if (byte < 0x20 || byte == 0x7F) plain[i] = '?';
    if (byte == 0xC2 && static_cast<uint8_t>(plain[i + 1]) < 0xA0) plain.replace(i, 2, "?");
  }
  return plain;
}

std::string HumanBytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 || value >= 9.95 ? absl::StrFormat("%.0f%s", value, kUnits[unit])
                                    : absl::StrFormat("%.1f%s", value, kUnits[unit]);
}

std::string HumanDuration(std::chrono::nanoseconds duration) {
  const int64_t seconds =
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::seconds>(duration).count());
  if (seconds < 60) return absl::StrCat(seconds, "s");
  if (seconds < 3600) return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  if (seconds < 86400) return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
  return absl::StrFormat("%dd%02dh", seconds / 86400, seconds / 3600 % 24);
}

size_t OutputWidth() {
  winsize size = {};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

}  // namespace jenkins_agent
