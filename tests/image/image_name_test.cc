#include "driver/image/image_name.h"

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;

TEST(ImageName, TransportsAreThoseOfTheField) {
  struct Case {
    const char* name;
    Transport transport;
    const char* path;
    const char* part;
    const char* stored;
  };
  for (const Case& wanted :
       {Case{"oci:/a/b", Transport::kLayout, "/a/b", "", "oci:/a/b"},
        Case{"oci:/a/b:v1", Transport::kLayout, "/a/b", "v1", "oci:/a/b:v1"},
        Case{"oci:l:x/y:v1", Transport::kLayout, "/here/l", "x/y:v1", "oci:/here/l:x/y:v1"},
        Case{"oci-archive:../f.tar", Transport::kLayoutArchive, "/f.tar", "", "oci-archive:/f.tar"},
        Case{"docker-archive:/f.tar:a/b:1", Transport::kDockerArchive, "/f.tar", "a/b:1",
             "docker-archive:/f.tar:a/b:1"},
        Case{"rootfs:////", Transport::kRootfs, "/", "", "rootfs:/"},
        Case{"docker-archive://:x", Transport::kDockerArchive, "/", "x", "docker-archive:/:x"},
        Case{"rootfs:.", Transport::kRootfs, "/here", "", "rootfs:/here"},
        Case{"rootfs:/x//y/./z/", Transport::kRootfs, "/x/y/z", "", "rootfs:/x/y/z"},
        Case{"rootfs:/with:colon", Transport::kRootfs, "/with:colon", "", "rootfs:/with:colon"}}) {
    ASSERT_OK_AND_ASSIGN(const ImageName found, ParseImageName(wanted.name, "/here"));
    EXPECT_EQ(found.transport, wanted.transport) << wanted.name;
    EXPECT_EQ(found.path, wanted.path) << wanted.name;
    EXPECT_EQ(found.part, wanted.part) << wanted.name;
    EXPECT_EQ(found.ToString(), wanted.stored);
    ASSERT_OK_AND_ASSIGN(const ImageName again, ParseImageName(found.ToString()));
    EXPECT_EQ(again, found);
  }
}

TEST(ImageName, EverythingElseIsARegistrys) {
  ASSERT_OK_AND_ASSIGN(const ImageName name, ParseImageName("debian:12"));
  EXPECT_EQ(name.transport, Transport::kRegistry);
  EXPECT_EQ(name.ToString(), "docker.io/library/debian:12");
}

TEST(ImageName, WhatIsWrongIsSaid) {
  EXPECT_THAT(ParseImageName("oci::x"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'oci::x': has no path")));
  EXPECT_THAT(ParseImageName(absl::string_view("rootfs:/a\0b", 11)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("NUL")));
  EXPECT_THAT(ParseImageName("rootfs:/" + std::string(5000, 'a')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("at most")));
}

}  // namespace
}  // namespace jenkins_agent
