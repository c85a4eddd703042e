"""The documentation in a window, as it was installed: its pages need no browser and no network."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QTextCursor
from qtpy.QtWidgets import QDialog, QTextBrowser, QVBoxLayout, QWidget

from napari_mrcz.naming import docs_url
from napari_mrcz.widgets.base.form import push_button

_SIZE_PX = (820, 820)


class HelpPage(QDialog):
    """A page of the documentation, whose links lead to the others.

    Parameters
    ----------
    parent : QWidget
        The widget that is explained.
    """

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("napari-mrcz: documentation")
        self.browser = QTextBrowser()
        self.browser.setOpenExternalLinks(True)
        # Pictures of widgets are dark, figures light; napari's colours would hide the links.
        self.browser.setStyleSheet("background-color: white; color: black")
        self.back = push_button("Back", "Show the page before")
        self.back.setEnabled(False)
        self.back.clicked.connect(self.browser.backward)
        self.browser.backwardAvailable.connect(self.back.setEnabled)
        column = QVBoxLayout(self)
        column.addWidget(self.back)
        column.addWidget(self.browser)
        self.resize(*_SIZE_PX)

    def open_at(self, page: str, heading: str) -> None:
        """Show a page, such as "widgets.md", from the heading that begins with a text."""
        self.browser.setSource(QUrl(docs_url(page)))
        self.show()
        self.raise_()
        document: Any = self.browser.document()
        scroll: Any = self.browser.verticalScrollBar()
        block = document.begin()
        while block.isValid():
            if block.blockFormat().headingLevel() and block.text().startswith(heading):
                top = document.documentLayout().blockBoundingRect(block).top()
                self.browser.setTextCursor(QTextCursor(block))
                scroll.setValue(round(top))
                return
            block = block.next()
