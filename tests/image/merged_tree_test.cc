#include "driver/image/merged_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

namespace fs = std::filesystem;

class MergedTreeTest : public testing::Test {
 protected:
  void SetUp() override { REQUIRES_ROOT(); }

  std::string At(int layer, const std::string& path) {
    const std::string full = absl::StrCat(dir_.path(), "/", layer, path);
    fs::create_directories(fs::path(full).parent_path());
    return full;
  }
  void Write(int layer, const std::string& path, const std::string& text, int mode = 0644) {
    std::ofstream(At(layer, path)) << text;
    ASSERT_EQ(::chmod(At(layer, path).c_str(), mode), 0);
  }
  void Link(int layer, const std::string& path, const std::string& to) {
    fs::create_symlink(to, At(layer, path));
  }
  void Hide(int layer, const std::string& path) {
    ASSERT_EQ(::mknod(At(layer, path).c_str(), S_IFCHR, ::makedev(0, 0)), 0);
  }
  void MakeOpaque(int layer, const std::string& path) {
    fs::create_directories(At(layer, path));
    ASSERT_EQ(::setxattr(At(layer, path).c_str(), "trusted.overlay.opaque", "y", 1, 0), 0);
  }
  // Layer 1 above layer 0, and so on.
  MergedTree Tree(int layers = 2) {
    std::vector<std::string> paths;
    for (int i = layers - 1; i >= 0; --i) {
      fs::create_directories(absl::StrCat(dir_.path(), "/", i));
      paths.push_back(absl::StrCat(dir_.path(), "/", i));
    }
    return *MergedTree::Open(paths);
  }
  std::string Read(const MergedTree& tree, const std::string& path) {
    const absl::StatusOr<std::string> text = tree.ReadFile(path, 100);
    return text.ok() ? *text : std::string(text.status().message());
  }

  TempDir dir_;
};

TEST_F(MergedTreeTest, TheTopmostLayerDecidesAndDirectoriesAreMerged) {
  Write(0, "/etc/passwd", "lower");
  Write(0, "/etc/group", "kept");
  Write(1, "/etc/passwd", "upper");
  const MergedTree tree = Tree();
  EXPECT_EQ(Read(tree, "/etc/passwd"), "upper");
  EXPECT_EQ(Read(tree, "/etc/group"), "kept");
  EXPECT_THAT(tree.List("/etc"), ElementsAre("group", "passwd"));
  EXPECT_THAT(tree.List("/none"), IsEmpty());
}

TEST_F(MergedTreeTest, WhatALayerHidesIsGone) {
  Write(0, "/a", "x");
  Write(0, "/d/b", "x");
  Write(0, "/o/c", "x");
  Hide(1, "/a");
  Hide(1, "/d");
  MakeOpaque(1, "/o");
  Write(1, "/o/new", "y");
  const MergedTree tree = Tree();
  EXPECT_THAT(Read(tree, "/a"), HasSubstr("/a is not in the image"));
  EXPECT_THAT(Read(tree, "/d/b"), HasSubstr("not in the image"));
  EXPECT_THAT(Read(tree, "/o/c"), HasSubstr("not in the image"));
  EXPECT_THAT(tree.List("/o"), ElementsAre("new"));
}

TEST_F(MergedTreeTest, AFileOverADirectoryEndsIt) {
  Write(0, "/etc/passwd", "lower");
  Write(1, "/etc", "no directory");
  EXPECT_THAT(Read(Tree(), "/etc/passwd"), HasSubstr("not in the image"));
}

TEST_F(MergedTreeTest, LinksStayInside) {
  Write(0, "/usr/lib/jvm/java-17/bin/java", "", 0755);
  Link(0, "/usr/bin/java", "/etc/alternatives/java");
  Link(1, "/etc/alternatives/java", "/usr/lib/jvm/java-17/bin/java");
  Link(1, "/lib", "usr/lib");
  Link(1, "/out", "../../../../../../etc/passwd");
  Link(1, "/host", dir_.path());
  const MergedTree tree = Tree();
  EXPECT_THAT(*tree.Resolve("/usr/bin/java"), "/usr/lib/jvm/java-17/bin/java");
  EXPECT_THAT(*tree.Resolve("/lib/jvm/java-17/../java-17/."), "/usr/lib/jvm/java-17");
  EXPECT_TRUE(tree.IsProgram("/usr/bin/java"));
  EXPECT_FALSE(tree.IsProgram("/usr/bin"));
  EXPECT_THAT(Read(tree, "/out"), HasSubstr("not in the image"));
  EXPECT_THAT(Read(tree, "/host/0/usr/bin/java"), HasSubstr("not in the image"));
}

TEST_F(MergedTreeTest, LoopsAndWhatIsNoFile) {
  Link(0, "/a", "b");
  Link(0, "/b", "a");
  Write(0, "/long", std::string(101, 'x'));
  ASSERT_EQ(::mkfifo(At(0, "/fifo").c_str(), 0644), 0);
  const MergedTree tree = Tree();
  EXPECT_THAT(Read(tree, "/a"), HasSubstr("too many symbolic links"));
  EXPECT_THAT(Read(tree, "/fifo"), HasSubstr("is no file"));
  EXPECT_THAT(tree.ReadFile("/long", 100), Not(IsOk()));
}

// The plugin resolves what an image's config names, and has no descriptors to lose.
TEST_F(MergedTreeTest, ADeepTreeInManyLayersTakesFewDescriptors) {
  constexpr int kLayers = 8;
  std::string deep;
  for (int i = 0; i < 60; ++i) absl::StrAppend(&deep, "/d");
  for (int layer = 0; layer < kLayers; ++layer) Write(layer, deep + "/file", "text");
  const MergedTree tree = Tree(kLayers);
  rlimit limit = {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit few = {.rlim_cur = 128, .rlim_max = limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  EXPECT_EQ(Read(tree, deep + "/file"), "text");
  EXPECT_EQ(*tree.Resolve(deep + "/../../d/d/file"), deep + "/file");
  EXPECT_EQ(*tree.Resolve(deep + "/../../.."), deep.substr(0, deep.size() - 6));
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
}

TEST_F(MergedTreeTest, APathWithoutEndIsRefused) {
  Write(0, "/d/file", "text");
  const MergedTree tree = Tree();
  std::string path;
  for (int i = 0; i < 3000; ++i) absl::StrAppend(&path, "/d/..");
  EXPECT_THAT(tree.Resolve(path),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("too long")));
}

}  // namespace
}  // namespace jenkins_agent
