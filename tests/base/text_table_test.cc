#include "driver/base/text_table.h"

#include <gtest/gtest.h>

namespace jenkins_agent {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST(TextTable, ColumnsAreAlignedByCharactersAndLinesHaveNoBlanksAtTheirEnd) {
  EXPECT_EQ(FormatTable({"NAME", "N", "LAST"}, {{"köln", "1", "x"}, {"a", "100", ""}}, 0),
            "NAME  N    LAST\n"
            "köln  1    x\n"
            "a     100\n");
  EXPECT_EQ(FormatTable({"NAME"}, {}, 0), "NAME\n");
}

TEST(TextTable, OnATerminalLinesAreCutWhereTheyWouldWrap) {
  const std::vector<std::vector<std::string>> rows = {{"ä", "äöüäöüäöü"}, {"b", "abcdefgh"}};
  EXPECT_EQ(FormatTable({"A", "B"}, rows, 11), "A  B\nä  äöüäö...\nb  abcdefgh\n");
  EXPECT_EQ(FormatTable({"A", "B"}, rows, 2), "..\n..\n..\n");
}

TEST(TextTable, WhatComesFromOutsideCannotSteerATerminal) {
  EXPECT_EQ(Plain("a\x1b[2Jb\r\nc\td\x7f"), "a?[2Jb??c?d?");
  EXPECT_EQ(Plain("\xc2\x9b"
                  "2J"),
            "?2J");  // C1's CSI
  EXPECT_EQ(Plain("\xff"
                  "a"),
            "\xEF\xBF\xBD"
            "a");
  EXPECT_EQ(Plain("Zürich \xc2\xa0ok"), "Zürich \xc2\xa0ok");
}

TEST(TextTable, Bytes) {
  EXPECT_EQ(HumanBytes(0), "0B");
  EXPECT_EQ(HumanBytes(1023), "1023B");
  EXPECT_EQ(HumanBytes(1024), "1.0KiB");
  EXPECT_EQ(HumanBytes(10'188), "9.9KiB");
  EXPECT_EQ(HumanBytes(10'240), "10KiB");
  EXPECT_EQ(HumanBytes((1 << 20) - 1), "1.0MiB");
  EXPECT_EQ(HumanBytes(180 << 20), "180MiB");
  EXPECT_EQ(HumanBytes(uint64_t{3} << 30), "3.0GiB");
  EXPECT_EQ(HumanBytes(UINT64_MAX), "16777216TiB");
}

TEST(TextTable, Durations) {
  EXPECT_EQ(HumanDuration(milliseconds(-5000)), "0s");
  EXPECT_EQ(HumanDuration(milliseconds(59'999)), "59s");
  EXPECT_EQ(HumanDuration(minutes(4) + seconds(2)), "4m02s");
  EXPECT_EQ(HumanDuration(hours(2) + minutes(5)), "2h05m");
  EXPECT_EQ(HumanDuration(hours(24 * 400 + 4)), "400d04h");
}

}  // namespace
}  // namespace jenkins_agent
