#include "driver/config/value_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

void ExpectRefused(const absl::Status& status, const std::string& message) {
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(message)));
}

TEST(QuotedTest, EscapesAndShortens) {
  EXPECT_EQ(Quoted("a\nb"), "\"a\\nb\"");
  EXPECT_EQ(Quoted(std::string(80, 'x')), "\"" + std::string(80, 'x') + "\"");
  EXPECT_EQ(Quoted(std::string(81, 'x')), "\"" + std::string(80, 'x') + "...\"");
  // never half a character
  EXPECT_EQ(Quoted(std::string(79, 'x') + "éé"), "\"" + std::string(79, 'x') + "...\"");
}

TEST(AbsolutePathTest, Accepts) {
  for (const char* path :
       {"/", "/local/agent", "/a/..b/c..", "/a//b/", "/./a", "/mit Leerzeichen"}) {
    EXPECT_OK(CheckAbsolutePath(path)) << path;
  }
}

TEST(AbsolutePathTest, Refuses) {
  ExpectRefused(CheckAbsolutePath(""), "\"\" is not an absolute path; start it with '/'");
  ExpectRefused(CheckAbsolutePath("local/agent"), "\"local/agent\" is not an absolute path");
  ExpectRefused(CheckAbsolutePath("/local/../etc"), "contains '..'");
  ExpectRefused(CheckAbsolutePath("/.."), "contains '..'");
  ExpectRefused(CheckAbsolutePath("/" + std::string(kMaxPathBytes, 'a')),
                "4096 bytes are too long (allowed: up to 4095)");
}

TEST(ControllerUrlTest, Accepts) {
  for (const char* url :
       {"http://jenkins", "https://jenkins.example/", "HTTPS://Jenkins.Example:8443/ci/",
        "http://10.0.0.1:8080", "http://[::1]:8080/jenkins", "http://[fe80::1]/",
        "https://a_b.example/x%20y/~ci;v=1", "http://h/user@team/"}) {
    EXPECT_OK(CheckControllerUrl(url)) << url;
  }
}

TEST(ControllerUrlTest, RefusesOtherSchemes) {
  for (const char* url : {"", "jenkins.example", "ftp://jenkins/", "https:/jenkins/", "//jenkins/",
                          "file:///etc/passwd", " http://jenkins"}) {
    ExpectRefused(CheckControllerUrl(url),
                  "is not an http or https URL; write http://HOST[:PORT]/");
  }
}

TEST(ControllerUrlTest, RefusesBadHostsAndPorts) {
  for (const char* url :
       {"http://",         "http:///ci",    "http://:8080/", "http://h:/",        "http://h:0/",
        "http://h:65536/", "http://h:80a/", "http://h:+80/", "http://-h/",        "http://.h/",
        "http://h h/",     "http://::1/",   "http://[::1",   "http://[::1]8080/", "http://[zz]/",
        "http://[]/",      "http://h\n/",   "http://h%41/",  "http://h\\x/",      "http://hé/"}) {
    EXPECT_THAT(CheckControllerUrl(url), Not(IsOk())) << url;
  }
  ExpectRefused(CheckControllerUrl("http://h:0/"), "\"http://h:0/\" has no valid host or port");
  ExpectRefused(CheckControllerUrl("http://" + std::string(254, 'h')), "no valid host");
}

TEST(ControllerUrlTest, NeverRepeatsACredential) {
  ExpectRefused(CheckControllerUrl("https://admin:hunter2@jenkins/"),
                "contains a user name or password; remove it");
  for (const char* url :
       {"https://admin:hunter2@jenkins/", "https://hunter2@jenkins", "ftp://a:hunter2@jenkins/",
        "admin:hunter2@jenkins", "https:/a:hunter2@jenkins/", "https://h/?token=hunter2",
        "https://h:x/#hunter2", "https://h\\@hunter2/", "ftp://h/?t=hunter2"}) {
    EXPECT_THAT(CheckControllerUrl(url),
                StatusIs(absl::StatusCode::kInvalidArgument, Not(HasSubstr("hunter2"))))
        << url;
  }
}

TEST(ControllerUrlTest, RefusesWhatIsNoPath) {
  ExpectRefused(CheckControllerUrl("http://h/a b"), "cannot hold; write it as %XX");
  ExpectRefused(CheckControllerUrl("http://h/\"x"), "cannot hold");
  ExpectRefused(CheckControllerUrl("http://h/?a=b"), "has a query or fragment");
  ExpectRefused(CheckControllerUrl("http://h#x"), "has a query or fragment");
  ExpectRefused(CheckControllerUrl("http://h/" + std::string(2048, 'a')),
                "2057 bytes are too long");
}

TEST(AgentNameTest, Accepts) {
  for (const char* name : {"linux-1", "Agent 7 (big)", "käfer", "a", "...", "node.example"}) {
    EXPECT_OK(CheckAgentName(name)) << name;
  }
  EXPECT_OK(CheckAgentName(std::string(255, 'a')));
}

TEST(AgentNameTest, Refuses) {
  for (const char c : std::string("?*/\\%!@#$^&|<>[]:;")) {
    ExpectRefused(CheckAgentName(std::string("a") + c),
                  std::string("contains '") + c + "'; Jenkins");
  }
  ExpectRefused(CheckAgentName("."), "is no name for an agent");
  ExpectRefused(CheckAgentName(".."), "is no name for an agent");
  ExpectRefused(CheckAgentName(" a"), "starts or ends with a blank");
  ExpectRefused(CheckAgentName("a\tb"), "control character");
  ExpectRefused(CheckAgentName(std::string(256, 'a')),
                "256 bytes are too long (allowed: up to 255)");
}

TEST(TunnelTest, AcceptsTheFourForms) {
  for (const char* text : {"h:50000", "h:", ":50000", "[::1]:50000", "10.0.0.1:1", "[::1]:"}) {
    EXPECT_OK(CheckTunnel(text)) << text;
  }
}

TEST(TunnelTest, Refuses) {
  for (const char* text : {"", ":", "h", "[::1]", "::1:50000", "h:0", "h:65536", "h:x", "h:1:2",
                           "[h]:1", "[::1]x:1", "-h:1", "h :1", "http://h:1"}) {
    ExpectRefused(CheckTunnel(text), "is not HOST:PORT, HOST:, :PORT or [IPv6]:PORT");
  }
}

TEST(HostPortTest, NeedsBoth) {
  EXPECT_OK(CheckHostPort("jenkins.example:50000"));
  EXPECT_OK(CheckHostPort("[2001:db8::1]:50000"));
  for (const char* text : {"", "h", "h:", ":1", "[::1]", "[::1]:", "h:99999"}) {
    ExpectRefused(CheckHostPort(text), "is not HOST:PORT or [IPv6]:PORT (ports: 1 to 65535)");
  }
}

TEST(HeaderTest, NamesAreTokensAndValuesHaveNoControlCharacters) {
  EXPECT_OK(CheckHeader("CF-Access-Client-Id", "a b\tc=d"));
  EXPECT_OK(CheckHeader("X", ""));
  for (const char* name : {"", "a b", "a=b", "a:b", "ä", "a\r\n"}) {
    ExpectRefused(CheckHeader(name, "v"), "is no name for an HTTP header");
  }
  const absl::Status split = CheckHeader("X", "hunter2\r\nEvil: 1");
  ExpectRefused(split, "contains a line break");
  EXPECT_THAT(split, StatusIs(absl::StatusCode::kInvalidArgument, Not(HasSubstr("hunter2"))));
}

TEST(ListenAddressTest, IsOnTheLoopbackAddressUnlessItNamesAnother) {
  for (const char* text : {"9465", ":9465", "127.0.0.1:9465"}) {
    EXPECT_EQ(*ListenAddress(text), "127.0.0.1:9465") << text;
  }
  EXPECT_EQ(*ListenAddress("0.0.0.0:1024"), "0.0.0.0:1024");
  EXPECT_EQ(*ListenAddress("[::1]:65535"), "[::1]:65535");
  for (const char* text : {"", ":", "0", "80", ":1023", "65536", "localhost:9465", "127.0.0.1",
                           "127.0.0.1:", "[::1]", "::1:9465", "9465,9466", "9465s", "a b:9465"}) {
    ExpectRefused(ListenAddress(text).status(), "is not PORT, ADDRESS:PORT or [IPv6 address]:PORT");
  }
}

TEST(InstanceIdentityTest, IsBase64OnOneLine) {
  EXPECT_OK(CheckInstanceIdentity("MIIBIjANBgkqhkiG9w0BAQ=="));
  ExpectRefused(CheckInstanceIdentity("MIIB\nIjAN"), "is not base64 on one line");
  ExpectRefused(CheckInstanceIdentity("-----BEGIN"), "is not base64 on one line");
  ExpectRefused(CheckInstanceIdentity("a"), "is not base64 on one line");
  ExpectRefused(CheckInstanceIdentity(std::string(8196, 'A')), "8196 bytes are too long");
}

TEST(JavaVersionTest, IsAFeatureVersion) {
  for (const char* version : {"8", "11", "17", "99"}) EXPECT_OK(CheckJavaVersion(version));
  for (const char* version : {"", "7", "0", "017", "100", "1.8", "17.0.2", "-8", "+8", "x", " 8"}) {
    ExpectRefused(CheckJavaVersion(version),
                  "is not a Java version (allowed: 8 to 99, such as 17)");
  }
}

TEST(JavaClassTest, IsNoOption) {
  for (const char* name : {"Main", "hudson.remoting.jnlp.Main", "a/b/C$D", "_x", "größe.Ä"}) {
    EXPECT_OK(CheckJavaClass(name)) << name;
  }
  for (const char* name : {"", "-version", "@file", "1a", "a b", "a;b", "a-b"}) {
    ExpectRefused(CheckJavaClass(name), "is not a Java class name");
  }
}

}  // namespace
}  // namespace jenkins_agent
