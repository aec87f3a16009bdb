// The rotated files themselves; the task around them is in logs_test.cc.
#include "driver/supervisor/log_file.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::StartsWith;

class LogFileTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(MakeDirs(Logs())); }

  std::string Logs() const { return dir_.path() + "/alloc/logs"; }
  std::string Path(const std::string& name) const { return Logs() + "/" + name; }
  LogFileSet Files(uint64_t max_file_bytes, uint32_t max_files = 10) const {
    return {dir_.path(), "alloc/logs", "t.stdout", max_files, max_file_bytes};
  }
  // Names and contents of the plain files.
  std::map<std::string, std::string> Contents() const {
    std::map<std::string, std::string> contents;
    for (const auto& entry : std::filesystem::directory_iterator(Logs())) {
      if (entry.is_symlink() || !entry.is_regular_file()) continue;
      contents[entry.path().filename()] = ReadFile(entry.path(), 64 << 20).value();
    }
    return contents;
  }

  TempDir dir_;
};

TEST_F(LogFileTest, AnEmptyLogIsThereAtOnceAndReadableForAll) {
  RotatedFile log(Files(100));
  ASSERT_OK(log.Open());
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.0", "")));
  struct stat info;
  ASSERT_EQ(::stat(Path("t.stdout.0").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0644u);
}

TEST_F(LogFileTest, AFileIsFilledToItsLastByteAndTheNextBeginsWithTheNextByte) {
  RotatedFile log(Files(10));
  ASSERT_OK(log.Open());
  log.Append("12345");
  log.Append("6789\n");
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.0", "123456789\n")));
  log.Append("a");
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.0", "123456789\n"), Pair("t.stdout.1", "a")));
  log.Append("bcdefghij");
  log.Append("k");
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.0", "123456789\n"),
                                      Pair("t.stdout.1", "abcdefghij"), Pair("t.stdout.2", "k")));
}

TEST_F(LogFileTest, ALongLineFillsFilesOfExactlyTheLimit) {
  RotatedFile log(Files(10));
  ASSERT_OK(log.Open());
  log.Append("0123456789abcdefghijABCDE");
  EXPECT_THAT(Contents(),
              ElementsAre(Pair("t.stdout.0", "0123456789"), Pair("t.stdout.1", "abcdefghij"),
                          Pair("t.stdout.2", "ABCDE")));
}

TEST_F(LogFileTest, AShortLineStaysInOneFile) {
  RotatedFile log(Files(10));
  ASSERT_OK(log.Open());
  log.Append("one\ntwo\nthree\nfour\n");
  log.Append("five\n");
  EXPECT_THAT(Contents(),
              ElementsAre(Pair("t.stdout.0", "one\ntwo\n"), Pair("t.stdout.1", "three\n"),
                          Pair("t.stdout.2", "four\nfive\n")));
}

TEST(PartForThisFileTest, KeepsOnlyLinesTogetherThatAnotherFileCouldHold) {
  EXPECT_EQ(PartForThisFile("abc", 3, 100, true), 3u);
  EXPECT_EQ(PartForThisFile("abc", 2, 100, true), 0u);    // at the start of a line
  EXPECT_EQ(PartForThisFile("abc", 2, 100, false), 2u);   // its start is in this file already
  EXPECT_EQ(PartForThisFile("a\nbc", 3, 100, true), 2u);  // up to the last line that fits
  EXPECT_EQ(PartForThisFile("abc", 2, 2, true), 2u);      // fits nowhere
  EXPECT_EQ(PartForThisFile("abc", 0, 2, true), 0u);
  const std::string long_line(RotatedFile::kMaxWholeLine + 1, 'x');
  EXPECT_EQ(PartForThisFile(long_line, 5, 1 << 20, true), 5u);
}

TEST_F(LogFileTest, TheOldestIsRemovedAndForeignFilesStay) {
  for (const char* name : {"t.stderr.0", "t.stdout.x", "t.stdout.00", "u.stdout.0"}) {
    ASSERT_OK(WriteFileAtomic(Path(name), "foreign"));
  }
  RotatedFile log(Files(2, /*max_files=*/3));
  ASSERT_OK(log.Open());
  for (char c = 'a'; c <= 'f'; ++c) log.Append(std::string(1, c) + "\n");
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stderr.0", "foreign"), Pair("t.stdout.00", "foreign"),
                                      Pair("t.stdout.3", "d\n"), Pair("t.stdout.4", "e\n"),
                                      Pair("t.stdout.5", "f\n"), Pair("t.stdout.x", "foreign"),
                                      Pair("u.stdout.0", "foreign")));
}

TEST_F(LogFileTest, ARestartGoesOnWithTheHighestNumber) {
  for (const char* number : {"2", "9", "10"}) {
    ASSERT_OK(WriteFileAtomic(Path(absl::StrCat("t.stdout.", number)), "old\n", 0644));
  }
  {
    RotatedFile log(Files(10));
    ASSERT_OK(log.Open());
    log.Append("new\n");
  }
  RotatedFile log(Files(8));
  ASSERT_OK(log.Open());  // that file is full, and so it stays until there is something to write
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.10", "old\nnew\n"),
                                      Pair("t.stdout.2", "old\n"), Pair("t.stdout.9", "old\n")));
  log.Append("x\n");
  EXPECT_EQ(Contents()["t.stdout.11"], "x\n");
}

TEST_F(LogFileTest, ADeletedFileIsMadeAnew) {
  RotatedFile log(Files(100));
  ASSERT_OK(log.Open());
  log.Append("lost\n");
  ASSERT_EQ(::unlink(Path("t.stdout.0").c_str()), 0);
  log.Append("kept\n");
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.0", "kept\n")));
}

TEST_F(LogFileTest, ATruncatedFileIsFilledFromItsStart) {
  RotatedFile log(Files(10));
  ASSERT_OK(log.Open());
  log.Append("123456789\n");
  ASSERT_EQ(::truncate(Path("t.stdout.0").c_str(), 0), 0);
  log.Append("new\n");
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.0", "new\n")));
}

TEST_F(LogFileTest, ADeletedDirectoryCostsBytesThatOneMarkerCounts) {
  RotatedFile log(Files(1000));
  ASSERT_OK(log.Open());
  log.Append("before, without end of line");
  std::filesystem::remove_all(Logs());
  log.Append("12345");
  log.Append("678\n");
  EXPECT_FALSE(std::filesystem::exists(Logs()));  // Nomad's to make, or to remove for good
  ASSERT_OK(MakeDirs(Logs()));
  log.Append("after\n");
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.0",
                                           "\n[nomad-driver-jenkins-agent: 9 bytes of output "
                                           "dropped: open alloc/logs: No such file or directory]\n"
                                           "after\n")));
  log.Finish();
  EXPECT_THAT(Contents()["t.stdout.0"], testing::EndsWith("]\nafter\n"));
}

TEST_F(LogFileTest, TheEndIsTheLastChanceForTheMarker) {
  RotatedFile log(Files(1000));
  ASSERT_OK(log.Open());
  std::filesystem::remove_all(Logs());
  log.Append("12345\n");
  ASSERT_OK(MakeDirs(Logs()));
  log.Finish();
  EXPECT_THAT(Contents()["t.stdout.0"],
              StartsWith("[nomad-driver-jenkins-agent: 6 bytes of output dropped: "));
}

TEST_F(LogFileTest, AMissingDirectoryIsAnError) {
  std::filesystem::remove_all(Logs());
  EXPECT_THAT(RotatedFile(Files(10)).Open(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("log directory: ")));
}

TEST_F(LogFileTest, PlantedNamesArePassedOver) {
  const std::string victim = dir_.path() + "/victim";
  ASSERT_OK(WriteFileAtomic(victim, "untouched"));
  ASSERT_EQ(::symlink(victim.c_str(), Path("t.stdout.0").c_str()), 0);
  ASSERT_EQ(::symlink("/nowhere/at/all", Path("t.stdout.1").c_str()), 0);
  ASSERT_EQ(::mkfifo(Path("t.stdout.2").c_str(), 0666), 0);
  ASSERT_EQ(::mkdir(Path("t.stdout.3").c_str(), 0777), 0);
  ASSERT_EQ(::link(victim.c_str(), Path("t.stdout.4").c_str()), 0);
  RotatedFile log(Files(4));
  ASSERT_OK(log.Open());
  ASSERT_EQ(::symlink(victim.c_str(), Path("t.stdout.6").c_str()), 0);
  log.Append("one\ntwo\n");
  ASSERT_EQ(::unlink(Path("t.stdout.4").c_str()), 0);
  EXPECT_THAT(Contents(), ElementsAre(Pair("t.stdout.5", "one\n"), Pair("t.stdout.7", "two\n")));
  EXPECT_EQ(*ReadFile(victim), "untouched");
}

TEST_F(LogFileTest, APlantedDirectoryIsRefused) {
  const std::string victim = dir_.path() + "/victim";
  ASSERT_OK(MakeDirs(victim));
  RotatedFile log(Files(4));
  ASSERT_OK(log.Open());
  std::filesystem::rename(Logs(), Logs() + ".moved");
  ASSERT_EQ(::symlink(victim.c_str(), Logs().c_str()), 0);
  log.Append("one\n");  // into the file that is open, wherever it is now
  log.Append("two\n");
  EXPECT_TRUE(std::filesystem::is_empty(victim));
  EXPECT_THAT(RotatedFile(Files(4)).Open(),
              StatusIs(testing::_, HasSubstr("Too many levels of symbolic links")));
}

TEST_F(LogFileTest, AFullDiskCostsBytesThatOneMarkerCounts) {
  REQUIRES_ROOT();
  ASSERT_EQ(::mount("log_file_test", Logs().c_str(), "tmpfs", 0, "size=64k"), 0);
  std::string ballast(40 << 10, 'b');
  ASSERT_OK(WriteFileAtomic(Path("ballast"), ballast));
  RotatedFile log(Files(1 << 20));
  ASSERT_OK(log.Open());
  const std::string block(4 << 10, 'x');
  for (int i = 0; i < 20; ++i) log.Append(block);
  const size_t stored = Contents()["t.stdout.0"].size();
  EXPECT_LT(stored, 20 * block.size());
  ASSERT_EQ(::unlink(Path("ballast").c_str()), 0);
  log.Append("after\n");
  log.Append("that\n");
  EXPECT_EQ(Contents()["t.stdout.0"].substr(stored),
            absl::StrCat("\n[nomad-driver-jenkins-agent: ", 20 * block.size() - stored,
                         " bytes of output dropped: write t.stdout.0: No space left on device]\n"
                         "after\nthat\n"));
  EXPECT_EQ(log.dropped_total(), 20 * block.size() - stored);
  EXPECT_EQ(::umount2(Logs().c_str(), MNT_DETACH), 0);
  EXPECT_THAT(Contents(), IsEmpty());
}

}  // namespace
}  // namespace jenkins_agent
