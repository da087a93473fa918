# `cmake --install build/release`: the program, what a service needs, and what operators look at.
include(GNUInstallDirs)
set(UNIT_DIR "lib/systemd/system" CACHE PATH "Where systemd's units go, relative to the prefix")
configure_file(conf/packaging/tidegate.service.in ${CMAKE_BINARY_DIR}/tidegate.service @ONLY)

install(TARGETS tidegate RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES conf/tidegate.yaml DESTINATION ${CMAKE_INSTALL_FULL_SYSCONFDIR}/tidegate)
install(FILES conf/packaging/default DESTINATION ${CMAKE_INSTALL_FULL_SYSCONFDIR}/default RENAME tidegate)
install(FILES ${CMAKE_BINARY_DIR}/tidegate.service conf/packaging/tidegate.socket DESTINATION ${UNIT_DIR})
install(FILES conf/packaging/sysusers.conf DESTINATION lib/sysusers.d RENAME tidegate.conf)
install(FILES conf/packaging/tmpfiles.conf DESTINATION lib/tmpfiles.d RENAME tidegate.conf)
install(FILES conf/packaging/sysctl.conf DESTINATION ${CMAKE_INSTALL_DATADIR}/tidegate)
install(DIRECTORY conf/grafana conf/prometheus DESTINATION ${CMAKE_INSTALL_DATADIR}/tidegate)
install(FILES gateway/http/openapi.json DESTINATION ${CMAKE_INSTALL_DATADIR}/tidegate)
install(DIRECTORY web-demo/demo DESTINATION ${CMAKE_INSTALL_DATADIR}/tidegate)
install(FILES README.md CHANGELOG.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md" PATTERN adr EXCLUDE PATTERN results EXCLUDE
        PATTERN images EXCLUDE)
