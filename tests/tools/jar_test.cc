#include "driver/tools/jar.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/status.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/tools/fake_jar.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<pb::JarInfo> Inspect(const std::string& content) {
  ASSIGN_OR_RETURN(const Fd file, MakeSealedMemfd("test-jar", content));
  ASSIGN_OR_RETURN(JarReport report, InspectJar(file.get()));
  return std::move(report.agent);
}

TEST(JarTest, TheRealOldAgent) {
  const std::string path = absl::StrCat(TEST_CACHE_DIR, "/maven/hudson-remoting-3.0.3.jar");
  REQUIRES_PATH(path);
  ASSERT_OK_AND_ASSIGN(const Fd file, OpenFile(path, O_RDONLY));
  ASSERT_OK_AND_ASSIGN(const JarReport report, InspectJar(file.get()));
  const pb::JarInfo& info = report.agent;
  EXPECT_EQ(info.generation(), pb::LAUNCHER_HUDSON);
  EXPECT_EQ(info.main_class(), "hudson.remoting.jnlp.Main");
  EXPECT_EQ(info.version(), "3.0.3");
  EXPECT_EQ(info.min_java(), 5u);
  ASSERT_OK_AND_ASSIGN(const std::string sha256, Sha256OfFile(file.get()));
  EXPECT_EQ(sha256, "966a9c61bfb1e426120ca42b6cc903148ff1e20f9fb481f3815e1de3f430254f");
}

TEST(JarTest, CurrentAgent) {
  ASSERT_OK_AND_ASSIGN(const pb::JarInfo info, Inspect(CurrentAgentJar()));
  EXPECT_EQ(info.generation(), pb::LAUNCHER_JENKINS);
  EXPECT_EQ(info.main_class(), "hudson.remoting.Launcher");
  EXPECT_EQ(info.version(), "3386.v1");
  EXPECT_EQ(info.min_java(), 17u);
}

TEST(JarTest, VersionResourceBeatsTheManifest) {
  ASSERT_OK_AND_ASSIGN(
      const pb::JarInfo info,
      Inspect(
          MakeJar({{"META-INF/MANIFEST.MF", "Main-Class: hudson.remoting.Launcher\nVersion: 1\n"},
                   {"hudson/remoting/hudson-version.properties", "# x\nversion=2.3\n"},
                   {"hudson/remoting/jnlp/Main.class", ClassFile(52, {"-url"})}})));
  EXPECT_EQ(info.version(), "2.3");
  EXPECT_EQ(info.generation(), pb::LAUNCHER_HUDSON);
  EXPECT_EQ(info.min_java(), 8u);
}

TEST(JarTest, OtherFilesAreNoAgents) {
  const std::string jar = CurrentAgentJar();
  const struct {
    std::string content;
    const char* message;
  } cases[] = {
      {"", "is not a jar file"},
      {"<html>Sign in</html>", "is not a jar file"},
      {jar.substr(0, jar.size() / 2), "is not a jar file"},
      {MakeJar({{"META-INF/MANIFEST.MF", "Main-Class: com.example.Main\n"}}), "is not an agent"},
      {MakeJar({{"hudson/remoting/jnlp/Main.class", "text"}}), "is no class file"},
      {MakeJar({{"hudson/remoting/jnlp/Main.class", std::string(2 << 20, 'x')}}), "too large"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(Inspect(c.content),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.message)));
  }
}

// Names and contents, by libarchive's reader of streams: the other one of its two.
std::map<std::string, std::string> EntriesOf(int fd) {
  std::map<std::string, std::string> entries;
  archive* reader = ::archive_read_new();
  ::archive_read_support_format_zip_streamable(reader);
  ::lseek(fd, 0, SEEK_SET);
  EXPECT_EQ(::archive_read_open_fd(reader, fd, 4096), ARCHIVE_OK);
  for (archive_entry* entry = nullptr; ::archive_read_next_header(reader, &entry) == ARCHIVE_OK;) {
    std::string& content = entries[::archive_entry_pathname(entry)];
    char block[4096];
    for (la_ssize_t n; (n = ::archive_read_data(reader, block, sizeof(block))) > 0;) {
      content.append(block, n);
    }
  }
  ::archive_read_free(reader);
  return entries;
}

struct Copy {
  absl::Status made;
  Fd file{::memfd_create("copy", MFD_CLOEXEC)};
};

Copy CopyOf(const std::string& content) {
  Copy copy;
  const absl::StatusOr<Fd> jar = MakeSealedMemfd("test-jar", content);
  copy.made = jar.ok() ? CopyWithoutSignature(jar->get(), copy.file.get()) : jar.status();
  return copy;
}

TEST(JarTest, ASignatureIsTakenOff) {
  std::map<std::string, std::string> entries = CurrentAgentEntries();
  entries["META-INF/services/a.SF"] = "of a library";
  entries["META-INF/INDEX.LIST"] = "stays";
  std::map<std::string, std::string> with_signature = entries;
  for (const char* name : {"META-INF/ECLIPSE_.SF", "META-INF/ECLIPSE_.RSA", "META-INF/x.dsa",
                           "meta-inf/y.EC", "META-INF/SIG-z"}) {
    with_signature[name] = "signature";
  }
  const Copy copy = CopyOf(MakeJar(with_signature));
  ASSERT_OK(copy.made);
  EXPECT_EQ(EntriesOf(copy.file.get()), entries);
  ASSERT_OK_AND_ASSIGN(const JarReport report, InspectJar(copy.file.get()));
  EXPECT_EQ(report.agent.generation(), pb::LAUNCHER_JENKINS);
  EXPECT_FALSE(report.is_signed);
}

TEST(JarTest, EachOfTheSignaturesFilesMakesASignedJar) {
  for (const char* name : {"META-INF/ECLIPSE_.SF", "META-INF/ECLIPSE_.RSA", "META-INF/x.dsa",
                           "meta-inf/y.EC", "META-INF/SIG-z", "META-INF/services/a.SF"}) {
    std::map<std::string, std::string> entries = CurrentAgentEntries();
    entries[name] = "text";
    ASSERT_OK_AND_ASSIGN(const Fd jar, MakeSealedMemfd("test-jar", MakeJar(entries)));
    ASSERT_OK_AND_ASSIGN(const JarReport report, InspectJar(jar.get()));
    EXPECT_EQ(report.is_signed, !absl::StrContains(name, "services")) << name;
  }
}

TEST(JarTest, ADamagedSignedJarIsRefused) {
  std::string jar = SignedAgentJar();
  // Behind the compressed content of the entry: its data descriptor (APPNOTE.TXT 4.3.9).
  const size_t end = jar.find("PK\x07\x08", jar.find("hudson/remoting/Launcher.class"));
  ASSERT_NE(end, std::string::npos);
  jar[end - 6] ^= 1;
  EXPECT_THAT(CopyOf(jar).made,
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not a jar file")));
}

TEST(JarTest, TheRealOldAgentIsSignedAndLosesOnlyThat) {
  const std::string path = absl::StrCat(TEST_CACHE_DIR, "/maven/hudson-remoting-3.0.3.jar");
  REQUIRES_PATH(path);
  ASSERT_OK_AND_ASSIGN(const Fd file, OpenFile(path, O_RDONLY));
  const Fd copy(::memfd_create("copy", MFD_CLOEXEC));
  ASSERT_OK_AND_ASSIGN(const JarReport report, InspectJar(file.get()));
  EXPECT_TRUE(report.is_signed);
  ASSERT_OK(CopyWithoutSignature(file.get(), copy.get()));
  std::map<std::string, std::string> expected = EntriesOf(file.get());
  EXPECT_EQ(expected.erase("META-INF/ECLIPSE_.SF") + expected.erase("META-INF/ECLIPSE_.RSA"), 2u);
  EXPECT_GT(expected.size(), 100u);
  EXPECT_EQ(EntriesOf(copy.get()), expected);
}

TEST(JarTest, NoBrokenByteDoesHarm) {
  const std::string jar = CurrentAgentJar();
  for (size_t i = 0; i < jar.size(); ++i) {
    std::string broken = jar;
    broken[i] = static_cast<char>(broken[i] ^ 0xff);
    Inspect(broken).status().IgnoreError();  // the sanitizers watch
  }
  const std::string signed_jar = SignedAgentJar();
  for (size_t i = 0; i < signed_jar.size(); ++i) {
    std::string broken = signed_jar;
    broken[i] = static_cast<char>(broken[i] ^ 0xff);
    CopyOf(broken).made.IgnoreError();
  }
}

}  // namespace
}  // namespace jenkins_agent
